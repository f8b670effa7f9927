// The kernels as custom calls of XLA.

#include "batch_norm.h"
#include "pool.h"
#include "winograd.h"

namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;
using Dimensions = ffi::Span<const std::int64_t>;

// Of x [N, H, W, C], kernels [M, taps, taps, C, features] and y [N, H', W', features].
ffi::ErrorOr<edp::Shape> ShapeOf(Dimensions x, Dimensions k, Dimensions y,
                                 std::int64_t stride) {
  if (x.size() != 4 || k.size() != 5 || y.size() != 4)
    return ffi::Unexpected(ffi::Error::InvalidArgument("wrong ranks"));
  const edp::Shape s{x[0], x[1], x[2], x[3], y[1], y[2], y[3], k[1], stride, k[0]};
  const auto out = [&](std::int64_t size) {
    return (size + 2 * s.pad() - s.taps) / stride + 1;
  };
  if ((s.taps != 1 && s.taps != 3) || (stride != 1 && stride != 2) || k[2] != s.taps ||
      k[3] != s.channels || k[4] != s.features || y[0] != s.images || s.members < 1 ||
      s.images % s.members || s.height < 1 || s.width < 1 ||
      s.out_height != out(s.height) || s.out_width != out(s.width))
    return ffi::Unexpected(ffi::Error::InvalidArgument("shapes do not fit"));
  return s;
}

ffi::Error Convolve(ffi::ThreadPool threads, Array x, Array kernels, Result y,
                    std::int64_t stride) {
  auto s = ShapeOf(x.dimensions(), kernels.dimensions(), y->dimensions(), stride);
  if (!s) return s.error();
  edp::BestConvolve(*s, x.typed_data(), kernels.typed_data(), y->typed_data(),
                    edp::Pool(threads));
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool threads, Array g, Array kernels, Result dx,
                         std::int64_t stride) {
  auto s = ShapeOf(dx->dimensions(), kernels.dimensions(), g.dimensions(), stride);
  if (!s) return s.error();
  edp::BestInputGradient(*s, g.typed_data(), kernels.typed_data(), dx->typed_data(),
                         edp::Pool(threads));
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool threads, Array x, Array g, Result dk,
                          std::int64_t stride) {
  auto s = ShapeOf(x.dimensions(), dk->dimensions(), g.dimensions(), stride);
  if (!s) return s.error();
  edp::BestKernelGradient(*s, x.typed_data(), g.typed_data(), dk->typed_data(),
                          edp::Pool(threads));
  return ffi::Error::Success();
}

ffi::ErrorOr<edp::Layer> LayerOf(const Array& x, const Array& scale, bool relu,
                                 float epsilon) {
  const edp::Index channels = scale.element_count();
  const edp::Index rows = channels ? x.element_count() / channels : 0;
  const edp::Layer layer{rows, channels, relu, epsilon};
  if (rows < 1 || layer.width() % edp::kLanes || rows % layer.together())
    return ffi::Unexpected(ffi::Error::InvalidArgument("shapes do not fit"));
  return layer;
}

ffi::Error Normalise(ffi::ThreadPool threads, Array x, Array scale, Array bias,
                     Result y, Result mean, Result var, bool relu, float epsilon) {
  auto s = LayerOf(x, scale, relu, epsilon);
  if (!s) return s.error();
  edp::Normalise(*s, x.typed_data(), scale.typed_data(), bias.typed_data(),
                 y->typed_data(), mean->typed_data(), var->typed_data(),
                 edp::Pool(threads));
  return ffi::Error::Success();
}

ffi::Error NormaliseGradient(ffi::ThreadPool threads, Array x, Array scale, Array bias,
                             Array mean, Array var, Array g, Result dx, Result dscale,
                             Result dbias, bool relu, float epsilon) {
  auto s = LayerOf(x, scale, relu, epsilon);
  if (!s) return s.error();
  edp::NormaliseGradient(*s, x.typed_data(), scale.typed_data(), bias.typed_data(),
                         mean.typed_data(), var.typed_data(), g.typed_data(),
                         dx->typed_data(), dscale->typed_data(), dbias->typed_data(),
                         edp::Pool(threads));
  return ffi::Error::Success();
}

auto OfTwo() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<std::int64_t>("stride");
}

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_convolve, Convolve, OfTwo());
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_input_gradient, InputGradient, OfTwo());
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_kernel_gradient, KernelGradient, OfTwo());
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_normalise, Normalise,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Attr<bool>("relu")
                                  .Attr<float>("epsilon"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_normalise_gradient, NormaliseGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Attr<bool>("relu")
                                  .Attr<float>("epsilon"));

#pragma GCC visibility pop
