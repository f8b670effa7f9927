// Each convolution and gradient by the way that is fastest for its shape.
#ifndef EDP_BEST_H_
#define EDP_BEST_H_

#include "gathered.h"
#include "winograd.h"

namespace edp {

// Whether patches are gathered: with a stride, as rows of outputs are short, and of many
// channels, as the floats at one channel of neighbouring outputs would fall into one set
// of the cache. To gather patches of few channels takes longer than the products.
inline bool IsGathered(const Shape& s, Index channels) {
  return channels >= (s.stride == 2 ? 8 : 128) && (s.stride == 2 || s.taps == 1);
}

template <class Run>
void BestConvolve(const Shape& s, const float* x, const float* kernels, float* y,
                  Run&& run) {
  if (HasWinograd(s))
    ConvolveWinograd(s, x, kernels, false, y, run);
  else if (IsGathered(s, s.channels))
    ConvolveGathered(s, x, kernels, false, y, run);
  else
    Convolve(s, x, kernels, false, y, run);
}

template <class Run>
void BestInputGradient(const Shape& s, const float* g, const float* kernels, float* dx,
                       Run&& run) {
  if (HasWinograd(s))
    ConvolveWinograd(s, g, kernels, true, dx, run);
  else if (s.stride == 2)
    InputGradientGathered(s, g, kernels, dx, run);
  else if (IsGathered(s, s.features))
    ConvolveGathered(s, g, kernels, true, dx, run);
  else
    Convolve(s, g, kernels, true, dx, run);
}

template <class Run>
void BestKernelGradient(const Shape& s, const float* x, const float* g, float* dk,
                        Run&& run) {
  if (HasWinograd(s))
    KernelGradientWinograd(s, x, g, dk, run);
  else if (IsGathered(s, s.channels))
    KernelGradientGathered(s, x, g, dk, run);
  else
    KernelGradient(s, x, g, dk, run);
}

}  // namespace edp

#endif  // EDP_BEST_H_
