// The convolution and its input gradient as custom calls of XLA.

#include "handlers.h"

using namespace handlers;

namespace {

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

}  // namespace

#pragma GCC visibility push(default)

// The floats of a vector, by which the instruction set is known.
extern "C" int edp_lanes() { return edp::kLanes; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_convolve, Convolve, OfTwo());
XLA_FFI_DEFINE_HANDLER_SYMBOL(edp_input_gradient, InputGradient, OfTwo());

#pragma GCC visibility pop
