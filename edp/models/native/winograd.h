// The 3x3 convolution without a stride and its gradients with 16 products for each
// 2 x 2 outputs instead of 36: F(2 x 2, 3 x 3) of Lavin and Gray, *Fast Algorithms for
// Convolutional Neural Networks*, CVPR 2016, section 4.1. Channels and features fill
// vectors.
//
// Tiles of 4 x 4 inputs and of 2 x 2 outputs become 16 points each. At each point, rows
// of tiles are multiplied as those of a 1x1 convolution are.
#ifndef EDP_WINOGRAD_H_
#define EDP_WINOGRAD_H_

#include "kernel_gradient.h"

namespace edp {

constexpr Index kPoints = 16;

// With fewer outputs than so many, transforming the kernel costs more than it saves.
constexpr Index kFewOutputs = 512;

inline bool HasWinograd(const Shape& s) {
  return s.taps == 3 && s.stride == 1 && s.channels % kLanes == 0 &&
         s.features % kLanes == 0 &&
         s.images / s.members * s.height * s.width >= kFewOutputs;
}

// G k Gᵀ of the kernel k [3, 3, channels, features] of each interleaved member, packed.
// For the input gradient k is flipped, which exchanges the first and the last points, and
// transposed.
inline void PackPoints(const Shape& s, const float* k, bool gradient, float* packed) {
  const Index size = s.tap();
  float* points = Scratch(Use::kTransformed, s.interleaved * kPoints * size);
  const auto transform = [size](const float* from, Index step, float* to, Index to_step) {
    for (Index e = 0; e < size; ++e) {
      const float ends = 0.5f * (from[e] + from[2 * step + e]);
      const float middle = 0.5f * from[step + e];
      to[e] = from[e];
      to[to_step + e] = ends + middle;
      to[2 * to_step + e] = ends - middle;
      to[3 * to_step + e] = from[2 * step + e];
    }
  };
  float* half = Scratch(Use::kHalf, 12 * size);  // [4, 3]
  for (Index m = 0; m < s.interleaved; ++m, k += 9 * size) {
    for (Index j = 0; j < 3; ++j)
      transform(k + j * size, 3 * size, half + j * size, 3 * size);
    for (Index i = 0; i < 4; ++i) {
      const Index row = gradient && i % 3 == 0 ? 3 - i : i;
      float* to = points + (m * kPoints + 4 * row) * size;
      transform(half + 3 * i * size, size, to, size);
      if (gradient) std::swap_ranges(to, to + size, to + 3 * size);
    }
  }
  PackTaps(points, kPoints, (gradient ? s.features : s.channels) / s.interleaved,
           gradient ? s.channels : s.features, gradient, false, s.interleaved, packed);
}

// A row of tiles of inputs: Bᵀ d B at points [16, tiles, channels], `step` floats from
// point to point. The tiles begin a column before the rows, which have `width`.
inline void InputPoints(const float* const (&rows)[4], Index tiles, Index channels,
                        Index width, float* points, Index step) {
  for (Index c = 0; c < channels; c += kLanes) {
    // Bᵀ d of a column.
    const auto column = [&](Index at, Vector (&v)[4]) {
      Vector d[4] = {};
      if (at < width)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) d[i] = Load(rows[i] + at * channels + c);
      v[0] = d[0] - d[2];
      v[1] = d[1] + d[2];
      v[2] = d[2] - d[1];
      v[3] = d[1] - d[3];
    };
    Vector d[4][4] = {};  // by column
    column(0, d[1]);
    for (Index t = 0; t < tiles; ++t) {
      column(2 * t + 1, d[2]);
      column(2 * t + 2, d[3]);
      float* p = points + t * channels + c;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i, p += 4 * step) {
        Store(p, d[0][i] - d[2][i]);
        Store(p + step, d[1][i] + d[2][i]);
        Store(p + 2 * step, d[2][i] - d[1][i]);
        Store(p + 3 * step, d[1][i] - d[3][i]);
        d[0][i] = d[2][i];
        d[1][i] = d[3][i];
      }
    }
  }
}

// The inverse for outputs: Aᵀ m A of each tile to two rows of y, of which the second
// may be null, `width` outputs each.
inline void OutputRows(const float* points, Index step, Index tiles, Index features,
                       Index width, float* first, float* second) {
  for (Index t = 0; t < tiles; ++t)
    for (Index o = 0; o < features; o += kLanes) {
      const float* p = points + t * features + o;
      Vector half[2][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Vector a = Load(p + j * step), b = Load(p + (4 + j) * step);
        const Vector c = Load(p + (8 + j) * step), d = Load(p + (12 + j) * step);
        half[0][j] = a + b + c;
        half[1][j] = b - c - d;
      }
      float* rows[2] = {first, second};
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        if (!rows[i]) continue;
        float* y = rows[i] + 2 * t * features + o;
        Store(y, half[i][0] + half[i][1] + half[i][2]);
        if (2 * t + 1 < width)
          Store(y + features, half[i][1] - half[i][2] - half[i][3]);
      }
    }
}

// A row of tiles of the cotangent: A g Aᵀ at points [16, tiles, features].
inline void CotangentPoints(const float* first, const float* second, Index tiles,
                            Index features, Index width, float* points, Index step) {
  for (Index t = 0; t < tiles; ++t)
    for (Index o = 0; o < features; o += kLanes) {
      const float* rows[2] = {first, second};
      Vector g[2][2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j)
          g[i][j] = rows[i] && 2 * t + j < width
                        ? Load(rows[i] + (2 * t + j) * features + o)
                        : Vector{};
      float* p = points + t * features + o;
      const Vector left[4] = {g[0][0], g[0][0] + g[1][0], g[0][0] - g[1][0], -g[1][0]};
      const Vector right[4] = {g[0][1], g[0][1] + g[1][1], g[0][1] - g[1][1], -g[1][1]};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i, p += 4 * step) {
        Store(p, left[i]);
        Store(p + step, left[i] + right[i]);
        Store(p + 2 * step, left[i] - right[i]);
        Store(p + 3 * step, -right[i]);
      }
    }
}

inline Index NumTiles(Index size) { return (size + 1) / 2; }

// Floats from point to point; a cache line more than tiles, or all points of a tile would
// fall into one set.
inline Index PointStep(const RowGroups& rows, Index channels) {
  return rows.most() * channels + 16;
}

// Transforms row r of the tiles of an image x; `zeros` is a row of them.
inline void ImagePoints(const Shape& s, Index tiles, const float* x, Index channels,
                        const float* zeros, Index r, float* points, Index step) {
  const float* rows[4];
  for (Index i = 0; i < 4; ++i) {
    const Index h = 2 * r + i - 1;
    rows[i] = h >= 0 && h < s.height ? x + h * s.width * channels : zeros;
  }
  InputPoints(rows, tiles, channels, s.width, points, step);
}

// As Convolve.
template <class Run>
void ConvolveWinograd(const Shape& s, const float* x, const float* kernels,
                      bool gradient, float* y, Run&& run) {
  const Index in = gradient ? s.features : s.channels;
  const Index out = gradient ? s.channels : s.features;
  const Index own = in / s.interleaved, size = kPoints * own * out;
  float* packed = Scratch(Use::kPacked, s.members * size);
  run(s.members, [&](Index m) {
    PackPoints(s, kernels + m * 9 * own * out, gradient, packed + m * size);
  });
  const RowGroups rows(NumTiles(s.width));
  const Index in_step = PointStep(rows, in), out_step = PointStep(rows, out);
  ForBands(s, NumTiles(s.height), run, [&](Index member, Index begin, Index end, Index top,
                                        Index bottom) {
    const std::vector<float> zeros(s.width * in);
    float* points = Scratch(Use::kInputs, kPoints * in_step);
    float* products = Scratch(Use::kOutputs, kPoints * out_step);
    std::array<std::array<float*, 2>, RowGroups::kTogether> to;
    Row row{{}, 1, own, in, out, out, 0, s.interleaved, packed + member * size, kPoints,
            nullptr};
    rows.For(s, member, begin, end, top, bottom, [&](Index n, Index r, Index i) {
      ImagePoints(s, rows.length, x + n * s.height * s.width * in, in, zeros.data(), r,
                  points + i * rows.length * in, in_step);
      float* first = y + (n * s.height + 2 * r) * s.width * out;
      to[i] = {first, 2 * r + 1 < s.height ? first + s.width * out : nullptr};
    }, [&](Index number) {
      row.count = number * rows.length;
      for (Index p = 0; p < kPoints; ++p) {
        row.taps[0] = {points + p * in_step, p};
        row.y = products + p * out_step;
        Outputs(row);
      }
      for (Index i = 0; i < number; ++i)
        OutputRows(products + i * rows.length * out, out_step, rows.length, out, s.width,
                   to[i][0], to[i][1]);
    });
  });
}

// As KernelGradient.
template <class Run>
void KernelGradientWinograd(const Shape& s, const float* x, const float* g, float* dk,
                            Run&& run) {
  const Index own = s.channels / s.interleaved, each = own * s.features;
  const Index size = kPoints * each;
  const RowGroups rows(NumTiles(s.width));
  const Index in_step = PointStep(rows, s.channels);
  const Index out_step = PointStep(rows, s.features);
  SumInParts(s, size, run, [&](Index member, Index begin, Index end, float* sums) {
    const std::vector<float> zeros(s.width * s.channels);
    float* points = Scratch(Use::kInputs, kPoints * in_step);
    float* cotangents = Scratch(Use::kOutputs, kPoints * out_step);
    rows.For(s, member, begin, end, 0, NumTiles(s.height), [&](Index n, Index r, Index i) {
      ImagePoints(s, rows.length, x + n * s.height * s.width * s.channels, s.channels,
                  zeros.data(), r, points + i * rows.length * s.channels, in_step);
      const float* first = g + (n * s.height + 2 * r) * s.width * s.features;
      CotangentPoints(first,
                      2 * r + 1 < s.height ? first + s.width * s.features : nullptr,
                      rows.length, s.features, s.width,
                      cotangents + i * rows.length * s.features, out_step);
    }, [&](Index number) {
      for (Index p = 0; p < kPoints; ++p) {
        const Positions positions{points + p * in_step, 0, s.channels,
                                  cotangents + p * out_step, 0, s.features,
                                  1, number * rows.length, s.features, s.interleaved};
        AddAllProducts(positions, own, s.features / kLanes, sums + p * each);
      }
    });
  }, [&](Index member, const float* sums) {
    // Gᵀ m G.
    float* taps = dk + member * 9 * each;
    if (s.interleaved > 1) taps = Scratch(Use::kHalf, 9 * each);
    for (Index e = 0; e < each; ++e) {
      float half[3][4];
      for (Index j = 0; j < 4; ++j) {
        const float a = sums[j * each + e], b = sums[(4 + j) * each + e];
        const float c = sums[(8 + j) * each + e], d = sums[(12 + j) * each + e];
        half[0][j] = a + 0.5f * (b + c);
        half[1][j] = 0.5f * (b - c);
        half[2][j] = 0.5f * (b + c) + d;
      }
      float* to = taps + e;
      for (Index i = 0; i < 3; ++i) {
        const float* m = half[i];
        to[(3 * i) * each] = m[0] + 0.5f * (m[1] + m[2]);
        to[(3 * i + 1) * each] = 0.5f * (m[1] - m[2]);
        to[(3 * i + 2) * each] = 0.5f * (m[1] + m[2]) + m[3];
      }
    }
    if (s.interleaved > 1)
      Separate(taps, 9 * own, s.features, s.features, s.interleaved,
               dk + member * 9 * each);
  });
}

}  // namespace edp

#endif  // EDP_WINOGRAD_H_
