// Each convolution and gradient by the way that is fastest for its shape.
#ifndef EDP_BEST_H_
#define EDP_BEST_H_

#include "gathered.h"
#include "winograd.h"

namespace edp {

// To gather patches of fewer channels takes longer than the products.
constexpr Index kFewChannels = 16;

// With so many, the floats at one channel of neighbouring outputs fall into few sets of
// the cache, but those of gathered patches do not.
constexpr Index kManyChannels = 128;

// A kernel gradient of fewer weights is as fast without copies of its inputs.
constexpr Index kFewWeights = Index{1} << 14;

// Whether rows of outputs fill tiles of fewer than 5, which do not hide the latency of
// the additions; several rows together do. In other rows gathering costs more than it
// saves.
inline bool HasShortRows(const Shape& s) {
  constexpr Index most = kAccumulators / 2;  // outputs of a tile, of two vectors each
  return s.out_width < 5 * ((s.out_width + most - 1) / most);
}

inline bool IsGathered(const Shape& s, Index channels) {
  return s.stride == 2 ? channels >= kFewChannels && HasShortRows(s)
                       : s.taps == 1 && channels >= kManyChannels;
}

inline bool HasGatheredGradient(const Shape& s) {
  const Index weights = s.taps * s.taps * s.channels / s.interleaved * s.features;
  return s.stride == 2 ? s.channels >= kFewChannels && weights >= kFewWeights
                       : s.taps == 1 && s.channels >= kManyChannels;
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
  else if (s.stride == 2 && IsGathered(s, s.channels))
    InputGradientGathered(s, g, kernels, dx, run);
  else if (s.stride == 2)
    SpreadGradient(s, g, kernels, dx, run);
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
  else if (HasGatheredGradient(s))
    KernelGradientGathered(s, x, g, dk, run);
  else
    KernelGradient(s, x, g, dk, run);
}

}  // namespace edp

#endif  // EDP_BEST_H_
