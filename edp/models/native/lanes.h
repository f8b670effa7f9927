// Vectors of floats, as wide as the instruction set has them.
#ifndef EDP_LANES_H_
#define EDP_LANES_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <memory>

namespace edp {

using Index = std::int64_t;

// The accumulators of a register tile: with the vectors that are multiplied, they
// have to fit the 32 registers of AVX-512 and the 16 of AVX2.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kAccumulators = 28;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kLanes = 8;
constexpr int kAccumulators = 12;
#else
#error "these kernels need AVX2 and FMA"
#endif

typedef float Vector
    __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef std::int32_t Mask
    __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector Load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void Store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

// The floats at p, one of each of G members, repeated over a vector. One is left as it
// is, which the compiler repeats in the multiplication itself.
template <int G>
auto Repeat(const float* p) {
  static_assert(G == 1 || G == 4);
  if constexpr (G == 1) {
    return *p;
  } else {
#if defined(__AVX512F__)
    return (Vector)_mm512_broadcast_f32x4(_mm_loadu_ps(p));
#else
    return (Vector)_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
#endif
  }
}

// x where the condition is positive or NaN, else 0: ReLU keeps NaN, as XLA's does.
inline Vector Positive(Vector x, Vector condition) {
  return (Vector)((Mask)x & ~(Mask)(condition <= 0.0f));
}

inline Index Vectors(Index floats) { return (floats + kLanes - 1) / kLanes; }

// What this thread's memory is for: each use has its own, kept for the next call.
enum class Use { kPacked, kSums, kInputs, kOutputs, kTransformed, kHalf };

inline float* Scratch(Use use, Index floats) {
  struct Memory {
    std::unique_ptr<float[]> start;
    Index floats = 0;
  };
  thread_local Memory all[6];
  Memory& memory = all[static_cast<int>(use)];
  if (memory.floats < floats) {
    memory.start.reset();
    memory.start.reset(new float[floats]);
    memory.floats = floats;
  }
  return memory.start.get();
}

}  // namespace edp

#endif  // EDP_LANES_H_
