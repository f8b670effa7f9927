// Each convolution and gradient by the way that is fastest for its shape.
#ifndef EDP_BEST_H_
#define EDP_BEST_H_

#include "gathered.h"
#include "winograd.h"

namespace edp {

// To gather patches of fewer channels takes longer than the products.
constexpr Index kFewChannels = 16;

// Sums of fewer floats over positions are as fast without copies of their inputs.
constexpr Index kFewSums = Index{1} << 14;

// Whether rows of outputs leave more than a fifth of the accumulators unused, which
// several rows together do not. Gathering costs more than it saves in other rows.
inline bool IsGathered(const Shape& s) {
  constexpr Index most = kAccumulators / 2;  // outputs of a tile, of two vectors each
  const Index filled = (s.out_width + most - 1) / most * most;
  return s.stride == 2 && s.channels >= kFewChannels && 5 * s.out_width < 4 * filled;
}

inline bool HasGatheredGradient(const Shape& s) {
  return s.stride == 2 && s.channels >= kFewChannels &&
         s.taps * s.taps * s.channels / s.interleaved * s.features >= kFewSums;
}

template <class Run>
void BestConvolve(const Shape& s, const float* x, const float* kernels, float* y,
                  Run&& run) {
  if (HasWinograd(s))
    ConvolveWinograd(s, x, kernels, false, y, run);
  else if (IsGathered(s))
    ConvolveGathered(s, x, kernels, y, run);
  else
    Convolve(s, x, kernels, false, y, run);
}

template <class Run>
void BestInputGradient(const Shape& s, const float* g, const float* kernels, float* dx,
                       Run&& run) {
  if (HasWinograd(s))
    ConvolveWinograd(s, g, kernels, true, dx, run);
  else if (IsGathered(s))
    InputGradientGathered(s, g, kernels, dx, run);
  else if (s.stride == 2)
    SpreadGradient(s, g, kernels, dx, run);
  else
    Convolve(s, g, kernels, true, dx, run);
}

template <class Run>
void BestKernelGradient(const Shape& s, const float* x, const float* g, float* dk,
                        Run&& run) {
  if (HasWinograd(s))
    KernelGradientWinograd(s, x, g, dk, run);
  else if (HasGatheredGradient(s))
    KernelGradientGathered(s, x, g, dk, run);
  else
    KernelGradient(s, x, g, dk, run);
}

}  // namespace edp

#endif  // EDP_BEST_H_
