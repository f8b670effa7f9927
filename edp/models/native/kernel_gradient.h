// The kernel gradient of a convolution, for each member by itself.
#ifndef EDP_KERNEL_GRADIENT_H_
#define EDP_KERNEL_GRADIENT_H_

#include "convolution.h"

namespace edp {

// Adds to [T, V vectors] of the gradient the products of T neighbouring inputs, which
// are channels of neighbouring taps, with V vectors of the cotangent, over positions.
// An input is one float, or one of each of the interleaved members.
struct Positions {
  const float* x;
  Index x_row, x_step;
  const float* g;
  Index g_row, g_step;
  Index rows, columns;
  Index dk_step, interleaved;
};

template <int T, int V, int G>
void AddProducts(const Positions& s, Index first, Index vector, float* dk) {
  Vector sum[T][V];
  dk += first * s.dk_step + vector * kLanes;
#pragma GCC unroll 32
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[t][v] = Load(dk + t * s.dk_step + v * kLanes);
  for (Index h = 0; h < s.rows; ++h) {
    const float* __restrict x = s.x + h * s.x_row + first * G;
    const float* __restrict g = s.g + h * s.g_row + vector * kLanes;
    for (Index q = 0; q < s.columns; ++q, x += s.x_step, g += s.g_step) {
      Vector cotangent[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) cotangent[v] = Load(g + v * kLanes);
#pragma GCC unroll 32
      for (int t = 0; t < T; ++t) {
        const auto value = Repeat<G>(x + t * G);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[t][v] += value * cotangent[v];
      }
    }
  }
#pragma GCC unroll 32
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) Store(dk + t * s.dk_step + v * kLanes, sum[t][v]);
}

using ProductsFunction = void (*)(const Positions&, Index, Index, float*);

template <int V, int G, std::size_t... T>
constexpr std::array<ProductsFunction, sizeof...(T)> Products(std::index_sequence<T...>) {
  return {AddProducts<T + 1, V, G>...};
}

// Over all `number` neighbouring inputs, in tiles of nearly equal numbers of them.
template <int V, int G>
void AddProducts(const Positions& s, Index number, Index vector, float* dk) {
  // 12 or more vectors of sums hide the latency of their additions.
  constexpr Index most = std::max(12 / V, kAccumulators / 2);
  static constexpr auto products = Products<V, G>(std::make_index_sequence<most>());
  const Index tiles = (number + most - 1) / most;
  for (Index i = 0; i < tiles; ++i) {
    const Index first = number * i / tiles, end = number * (i + 1) / tiles;
    products[end - first - 1](s, first, vector, dk);
  }
}

template <int G>
void AddVectors(const Positions& s, Index number, Index vectors, float* dk) {
  Index vector = 0;
  for (; vector + 2 <= vectors; vector += 2) AddProducts<2, G>(s, number, vector, dk);
  if (vector < vectors) AddProducts<1, G>(s, number, vector, dk);
}

inline void AddAllProducts(const Positions& s, Index number, Index vectors, float* dk) {
  if (s.interleaved == 1)
    AddVectors<1>(s, number, vectors, dk);
  else
    AddVectors<4>(s, number, vectors, dk);
}

// Copies rows [begin, end) of `width` floats apart from one another.
inline void CopyRows(const float* from, Index begin, Index end, Index width, float* to,
                     Index step) {
  for (Index r = begin; r < end; ++r)
    std::memcpy(to + r * step, from + r * width, width * sizeof(float));
}

// Adds one image's part to dk [taps, taps * channels, vectors of features].
class ImageGradient {
 public:
  explicit ImageGradient(const Shape& s)
      : s_(s), vectors_(Vectors(s.features)),
        x_row_((s.width + 2 * s.pad()) * s.channels) {
    if (s.pad()) x_.resize(s.height * x_row_, 0.0f);
    if (s.features % kLanes) g_.resize(s.out_height * s.out_width * vectors_ * kLanes);
    // Rows of outputs, as many as stay in the first cache with their inputs.
    const Index floats = s.stride * x_row_ + s.out_width * vectors_ * kLanes;
    block_ = std::max<Index>(1, kCacheFloats / floats);
  }

  void Add(const float* x, const float* g, float* dk) {
    const Index pad = s_.pad(), width = s_.width * s_.channels;
    Index copied = 0;
    for (Index h = 0; h < s_.out_height; h += block_) {
      const Index end = std::min(h + block_, s_.out_height);
      if (pad) {
        const Index needed = std::min((end - 1) * s_.stride + s_.taps - pad, s_.height);
        CopyRows(x, copied, needed, width, x_.data() + pad * s_.channels, x_row_);
        copied = std::max(copied, needed);
      }
      if (!g_.empty())
        CopyRows(g, h * s_.out_width, end * s_.out_width, s_.features, g_.data(),
                 vectors_ * kLanes);
      for (Index i = 0; i < s_.taps; ++i) AddTaps(x, g, h, end, i, dk);
    }
  }

 private:
  static constexpr Index kCacheFloats = 6144;

  // Of the taps of the kernel's row i, with the outputs' rows [begin, end).
  void AddTaps(const float* x, const float* g, Index begin, Index end, Index i,
               float* dk) {
    const Index pad = s_.pad(), step = vectors_ * kLanes;
    while (begin < end && begin * s_.stride + i - pad < 0) ++begin;
    while (begin < end && (end - 1) * s_.stride + i - pad >= s_.height) --end;
    if (begin >= end) return;
    const float* rows = pad ? x_.data() : x;
    const Positions positions{
        rows + (begin * s_.stride + i - pad) * x_row_, s_.stride * x_row_,
        s_.stride * s_.channels,
        (g_.empty() ? g : g_.data()) + begin * s_.out_width * step,
        s_.out_width * step, step, end - begin, s_.out_width, step, s_.interleaved};
    const Index number = s_.taps * s_.channels / s_.interleaved;
    AddAllProducts(positions, number, vectors_, dk + i * number * step);
  }

  const Shape s_;
  Index vectors_, x_row_, block_;
  std::vector<float> x_, g_;
};

// For each member, sums of `size` floats over its images. The batch is summed in parts,
// as many whatever the number of threads, by add(member, first image, end, sums), and
// the parts in order; then finish(member, sums).
template <class Run, class Add, class Finish>
void SumInParts(const Shape& s, Index size, Run&& run, Add&& add, Finish&& finish) {
  constexpr Index kParts = 16, kMaxFloats = Index{1} << 24;
  const Index batch = s.images / s.members;
  Index parts = std::min(batch, (kParts + s.members - 1) / s.members);
  parts = std::max<Index>(1, std::min(parts, kMaxFloats / (size * s.members)));
  float* sums = Scratch(Use::kSums, s.members * parts * size);
  run(s.members * parts, [&](Index task) {
    const Index member = task / parts, part = task % parts;
    std::fill_n(sums + task * size, size, 0.0f);
    add(member, batch * part / parts, batch * (part + 1) / parts, sums + task * size);
  });
  run(s.members, [&](Index member) {
    float* total = sums + member * parts * size;
    for (Index part = 1; part < parts; ++part)
      for (Index i = 0; i < size; ++i) total[i] += total[part * size + i];
    finish(member, total);
  });
}

// Copies rows of features, `step` floats apart, in which G interleaved members alternate,
// to [G, rows, features / G].
inline void Separate(const float* from, Index rows, Index step, Index features, Index G,
                     float* to) {
  for (Index m = 0; m < G; ++m)
    for (Index r = 0; r < rows; ++r)
      for (Index o = m; o < features; o += G) *to++ = from[r * step + o];
}

// dk [members, taps, taps, channels, features].
template <class Run>
void KernelGradient(const Shape& s, const float* x, const float* g, float* dk,
                    Run&& run) {
  const Index rows = s.taps * s.taps * s.channels / s.interleaved;
  const Index width = Vectors(s.features) * kLanes;
  const auto add = [&](Index member, Index begin, Index end, float* sums) {
    ImageGradient gradient(s);
    for (Index b = begin; b < end; ++b) {
      const Index n = b * s.members + member;
      gradient.Add(x + n * s.height * s.width * s.channels,
                   g + n * s.out_height * s.out_width * s.features, sums);
    }
  };
  SumInParts(s, rows * width, run, add, [&](Index member, const float* sums) {
    Separate(sums, rows, width, s.features, s.interleaved,
             dk + member * rows * s.features);
  });
}

}  // namespace edp

#endif  // EDP_KERNEL_GRADIENT_H_
