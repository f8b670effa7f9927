// Direct 2-D convolution and its input gradient: NHWC, kernels HWIO, zero-padded by
// taps / 2 on every side, taps 1 or 3. Image n has the kernel n mod `members`, or, where
// the channels of G = `interleaved` members alternate, G kernels: channel c * G + m of an
// image is channel c of member m, and meets the kernel of member m only.
//
// A tile of P neighbouring outputs of a row by V vectors of features stays in registers
// while taps and input channels are summed over, always in this order. `run` is called
// as run(tasks, f) and makes the calls f(0), ..., f(tasks - 1), in any order and on any
// threads; results do not depend on these.
#ifndef EDP_CONVOLUTION_H_
#define EDP_CONVOLUTION_H_

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "lanes.h"

namespace edp {

// Of the convolution itself, also where one of its gradients is computed.
struct Shape {
  Index images, height, width, channels;
  Index out_height, out_width, features;
  Index taps, stride, members, interleaved = 1;

  Index pad() const { return taps / 2; }
  // Floats of a tap of one member.
  Index tap() const { return channels / interleaved * (features / interleaved); }
};

constexpr Index kMaxTaps = 9;

// The operands of a row of `count` outputs. Output q reads `channels` values of each
// tap, each of `interleaved` floats, at x + q * x_step; its `features` floats go to
// y + q * y_step.
struct Row {
  struct Tap {
    const float* x;
    Index index;  // in the kernel
  };
  std::array<Tap, kMaxTaps> taps;
  int num_taps;
  Index channels, x_step, y_step, features, count, interleaved;
  const float* kernel;  // of one member, packed; see PackTaps
  Index kernel_taps;    // all of them
  float* y;
};

// Outputs first, ..., first + P - 1 of a row, V vectors of features from `vector` on.
template <int P, int V, int G>
void Tile(const Row& row, Index first, Index vector) {
  Vector sum[P][V];
#pragma GCC unroll 32
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[p][v] = Vector{};
  const Index channels = row.channels, step = row.x_step;
  const float* block = row.kernel + vector * kLanes * channels * row.kernel_taps;
  for (int t = 0; t < row.num_taps; ++t) {
    const float* __restrict x = row.taps[t].x + first * step;
    const float* __restrict k = block + row.taps[t].index * channels * V * kLanes;
    for (Index c = 0; c < channels; ++c, k += V * kLanes) {
      Vector kernel[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) kernel[v] = Load(k + v * kLanes);
#pragma GCC unroll 32
      for (int p = 0; p < P; ++p) {
        const auto value = Repeat<G>(x + p * step + c * G);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[p][v] += value * kernel[v];
      }
    }
  }
  float* y = row.y + first * row.y_step + vector * kLanes;
  const Index left = row.features - vector * kLanes;
  if (left >= V * kLanes) {
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) Store(y + p * row.y_step + v * kLanes, sum[p][v]);
  } else {
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p) {
      float all[V * kLanes];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) Store(all + v * kLanes, sum[p][v]);
      std::memcpy(y + p * row.y_step, all, left * sizeof(float));
    }
  }
}

using TileFunction = void (*)(const Row&, Index, Index);

template <int V, int G, std::size_t... P>
constexpr std::array<TileFunction, sizeof...(P)> Tiles(std::index_sequence<P...>) {
  return {Tile<P + 1, V, G>...};
}

// A row in tiles of nearly equal numbers of outputs.
template <int V, int G>
void Outputs(const Row& row, Index vector) {
  constexpr Index most = kAccumulators / (G == 1 ? V : 2);
  static constexpr auto tiles = Tiles<V, G>(std::make_index_sequence<most>());
  const Index number = (row.count + most - 1) / most;
  for (Index i = 0; i < number; ++i) {
    const Index first = row.count * i / number;
    const Index end = row.count * (i + 1) / number;
    tiles[end - first - 1](row, first, vector);
  }
}

// Features two vectors at a time, as they are packed, and a last one.
template <int G>
void AllOutputs(const Row& row) {
  const Index vectors = Vectors(row.features);
  Index vector = 0;
  for (; vector + 2 <= vectors; vector += 2) Outputs<2, G>(row, vector);
  if (vector < vectors) Outputs<1, G>(row, vector);
}

inline void Outputs(const Row& row) {
  if (row.count < 1) return;
  if (row.interleaved == 1)
    AllOutputs<1>(row);
  else
    AllOutputs<4>(row);
}

inline Index PackedSize(Index all, Index in, Index out) {
  return all * in * Vectors(out) * kLanes;
}

// Packs taps [G, all, in, out / G] of G interleaved members into blocks of two vectors or
// one, [all, in, lanes], the last padded with zeros. `transposed` are [G, all, out / G,
// in]; `flip` takes them from the end.
inline void PackTaps(const float* taps, Index all, Index in, Index out, bool transposed,
                     bool flip, Index interleaved, float* packed) {
  const Index G = interleaved, own = out / G;
  const Index vectors = Vectors(out);
  for (Index vector = 0; vector < vectors;) {
    const Index width = (vector + 2 <= vectors ? 2 : 1) * kLanes;
    const Index first = vector * kLanes, number = std::min(width, out - first);
    for (Index t = 0; t < all; ++t) {
      const float* tap = taps + (flip ? all - 1 - t : t) * in * own;
      for (Index i = 0; i < in; ++i, packed += width) {
        for (Index m = 0; m < G; ++m) {
          const float* from = tap + m * all * in * own;
          for (Index o = first / G, to = m; to < number; ++o, to += G)
            packed[to] = transposed ? from[o * in + i] : from[i * own + o];
        }
        for (Index o = number; o < width; ++o) packed[o] = 0;
      }
    }
    vector += width / kLanes;
  }
}

// The last `slots` rows of an image that were asked for, with `pad` zeros before and,
// unless `pad` is 0, pad + 1 after.
class PaddedRows {
 public:
  PaddedRows(Index width, Index channels, Index pad, Index slots = 3)
      : row_(width * channels), margin_(pad * channels),
        padded_(row_ + 2 * margin_ + channels), held_(slots) {
    if (pad) buffer_.resize(slots * padded_, 0.0f);
  }

  void Start(const float* image) {
    image_ = image;
    std::fill(held_.begin(), held_.end(), -1);
  }

  const float* operator[](Index r) {
    if (!margin_) return image_ + r * row_;
    const Index slot = r % static_cast<Index>(held_.size());
    float* row = buffer_.data() + slot * padded_;
    if (held_[slot] != r) {
      std::memcpy(row + margin_, image_ + r * row_, row_ * sizeof(float));
      held_[slot] = r;
    }
    return row;
  }

 private:
  Index row_, margin_, padded_;
  std::vector<float> buffer_;
  std::vector<Index> held_;
  const float* image_ = nullptr;
};

// Calls f(member, first image, end, first row, end) in tasks. A task has a few images of
// one member, so that its kernel stays in the cache; with fewer images than tasks, it has
// a band of an image's `rows`, of as many products as outweigh waking a thread.
template <class Run, class F>
void ForBands(const Shape& s, Index rows, Run&& run, F&& f) {
  constexpr Index kTasks = 32, kMinProducts = Index{1} << 21;
  const Index batch = s.images / s.members;
  const Index parts = std::min(batch, (kTasks + s.members - 1) / s.members);
  const Index products = s.out_height * s.out_width * s.channels * s.features * s.taps *
                         s.taps;
  const Index most = std::min(kTasks / (s.members * parts), products / kMinProducts);
  const Index bands = std::max<Index>(1, std::min(rows, most));
  run(s.members * parts * bands, [&](Index task) {
    const Index band = task % bands, part = task / bands % parts;
    f(task / bands / parts, batch * part / parts, batch * (part + 1) / parts,
      rows * band / bands, rows * (band + 1) / bands);
  });
}

// Rows of `length` outputs (or tiles) of a member's images, one image after the other, in
// groups of as many rows as have at most 48 outputs, or of one. Small images share a
// group: to read a kernel for a few outputs takes longer than to multiply by it.
struct RowGroups {
  static constexpr Index kTogether = 48;
  Index length, together;

  explicit RowGroups(Index length)
      : length(length), together(std::max<Index>(1, kTogether / length)) {}

  Index most() const { return together * length; }

  // For each group of the rows [top, bottom) of `member`'s images [begin, end): calls
  // f(image, row, which of the group) for each row, then done(number of rows).
  template <class F, class Done>
  void For(const Shape& s, Index member, Index begin, Index end, Index top,
           Index bottom, F&& f, Done&& done) const {
    const Index each = bottom - top, all = (end - begin) * each;
    for (Index first = 0; first < all; first += together) {
      const Index number = std::min(together, all - first);
      for (Index i = 0; i < number; ++i)
        f((begin + (first + i) / each) * s.members + member, top + (first + i) % each,
          i);
      done(number);
    }
  }
};

// The members' kernels, packed; for the input gradient transposed.
template <class Run>
const float* PackAll(const Shape& s, const float* kernels, bool gradient,
                           bool flip, Run&& run) {
  const Index all = s.taps * s.taps;
  const Index in = (gradient ? s.features : s.channels) / s.interleaved;
  const Index out = gradient ? s.channels : s.features;
  const Index size = PackedSize(all, in, out);
  float* packed = Scratch(Use::kPacked, s.members * size);
  run(s.members, [&](Index member) {
    PackTaps(kernels + member * all * in * out, all, in, out, gradient, flip,
             s.interleaved, packed + member * size);
  });
  return packed;
}

// y[n] = x[n] convolved with kernels[n mod members]; with `gradient`, of a convolution
// without a stride, x is the cotangent of its output and y that of its input.
template <class Run>
void Convolve(const Shape& s, const float* x, const float* kernels, bool gradient,
              float* y, Run&& run) {
  const float* packed = PackAll(s, kernels, gradient, gradient, run);
  const Index channels = gradient ? s.features : s.channels;
  const Index features = gradient ? s.channels : s.features;
  const Index pad = s.pad(), all = s.taps * s.taps;
  const Index size = PackedSize(all, channels / s.interleaved, features);
  ForBands(s, s.out_height, run, [&](Index member, Index begin, Index end, Index top,
                                     Index bottom) {
    PaddedRows rows(s.width, channels, pad);
    Row row{{}, 0, channels / s.interleaved, s.stride * channels, features, features,
            s.out_width, s.interleaved, packed + member * size, all, nullptr};
    for (Index b = begin; b < end; ++b) {
      const Index n = b * s.members + member;
      rows.Start(x + n * s.height * s.width * channels);
      for (Index h = top; h < bottom; ++h) {
        row.num_taps = 0;
        for (Index i = 0; i < s.taps; ++i) {
          const Index r = h * s.stride + i - pad;
          if (r < 0 || r >= s.height) continue;
          const float* start = rows[r];
          for (Index j = 0; j < s.taps; ++j)
            row.taps[row.num_taps++] = {start + j * channels, i * s.taps + j};
        }
        row.y = y + (n * s.out_height + h) * s.out_width * features;
        Outputs(row);
      }
    }
  });
}

// The cotangent of the input, from that of the output, with a stride of 2. Even and
// odd columns of the input are rows of their own; each meets the taps of its parity.
template <class Run>
void SpreadGradient(const Shape& s, const float* cotangent, const float* kernels,
                    float* dx, Run&& run) {
  const float* packed = PackAll(s, kernels, true, false, run);
  const Index pad = s.pad(), all = s.taps * s.taps, in = s.features / s.interleaved;
  const Index size = PackedSize(all, in, s.channels);
  ForBands(s, s.height, run, [&](Index member, Index begin, Index end, Index top,
                                 Index bottom) {
    PaddedRows rows(s.out_width, s.features, pad);
    Row row{{}, 0, in, s.features, 2 * s.channels, s.channels, 0, s.interleaved,
            packed + member * size, all, nullptr};
    for (Index b = begin; b < end; ++b) {
      const Index n = b * s.members + member;
      rows.Start(cotangent + n * s.out_height * s.out_width * s.features);
      for (Index h = top; h < bottom; ++h) {
        for (Index parity = 0; parity < 2; ++parity) {
          row.num_taps = 0;
          for (Index i = (h + pad) % 2; i < s.taps; i += 2) {
            const Index r = (h + pad - i) / 2;
            if (h + pad < i || r >= s.out_height) continue;
            const float* start = rows[r];
            for (Index j = (parity + pad) % 2; j < s.taps; j += 2) {
              const Index column = pad + (parity + pad - j) / 2;
              row.taps[row.num_taps++] = {start + column * s.features, i * s.taps + j};
            }
          }
          row.count = (s.width - parity + 1) / 2;
          row.y = dx + ((n * s.height + h) * s.width + parity) * s.channels;
          Outputs(row);
        }
      }
    }
  });
}

}  // namespace edp

#endif  // EDP_CONVOLUTION_H_
