// The kernel gradient and batch normalisation as custom calls of XLA.

#include "batch_norm.h"
#include "handlers.h"

using namespace handlers;

namespace {

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

ffi::Error Affine(ffi::ThreadPool threads, Array x, Array slope, Array offset, Result y,
                  bool relu) {
  auto s = LayerOf(x, slope, relu, 0);
  if (!s) return s.error();
  edp::Affine(*s, x.typed_data(), slope.typed_data(), offset.typed_data(),
              y->typed_data(), edp::Pool(threads));
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

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_kernel_gradient, KernelGradient, OfTwo());
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_affine, Affine,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<bool>("relu"));
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
