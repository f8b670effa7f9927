// Batch normalisation by the moments of the batch, with or without a ReLU after it, and
// its gradient: x [rows, channels], channels a multiple of 8; of 8 times an odd number
// the rows in pairs. Moments are summed in parts, as many whatever the number of
// threads, in single precision over a few thousand rows and in double precision over
// these. See convolution.h for `run`.
#ifndef EDP_BATCH_NORM_H_
#define EDP_BATCH_NORM_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "lanes.h"

namespace edp {

struct Layer {
  Index rows, channels;
  bool relu;
  float epsilon;

  // Rows that are taken as one, so that their floats fill vectors.
  Index together() const { return channels % kLanes ? 2 : 1; }
  Index width() const { return channels * together(); }
  Index long_rows() const { return rows / together(); }
};

// Per channel, what both directions need; repeated for the rows that are taken as one.
struct Coefficients {
  std::vector<float> mean, slope, offset;  // y = x * slope + offset

  Coefficients(const Layer& s, const float* mean_, const float* var, const float* scale,
               const float* bias)
      : mean(s.width()), slope(s.width()), offset(s.width()) {
    for (Index j = 0; j < s.width(); ++j) {
      const Index c = j % s.channels;
      mean[j] = mean_[c];
      slope[j] = scale[c] / std::sqrt(var[c] + s.epsilon);
      offset[j] = bias[c] - mean[j] * slope[j];
    }
  }
};

// Calls f<V>(first) for the vectors of a row, up to 4 at a time.
template <class F>
void ForVectors(Index width, F&& f) {
  Index first = 0;
  for (; first + 4 * kLanes <= width; first += 4 * kLanes)
    f(std::integral_constant<int, 4>{}, first);
  for (; first + 2 * kLanes <= width; first += 2 * kLanes)
    f(std::integral_constant<int, 2>{}, first);
  if (first < width) f(std::integral_constant<int, 1>{}, first);
}

constexpr Index kBatchParts = 32, kBlockRows = 2048;

// Calls f(part, first row, number of rows) for blocks of the parts of the rows.
template <class Run, class F>
void ForBlocks(const Layer& s, Run&& run, F&& f) {
  const Index rows = s.long_rows(), parts = std::min(kBatchParts, rows);
  const Index block = std::max<Index>(1, kBlockRows * 16 / s.width());
  run(parts, [&](Index part) {
    const Index end = rows * (part + 1) / parts;
    for (Index r = rows * part / parts; r < end; r += block)
      f(part, r, std::min(block, end - r));
  });
}

// Two sums per channel over all rows; add(v-th vector's sums, row pointer offset).
template <class Run, class Terms>
void Sum(const Layer& s, Run&& run, std::vector<double>& one, std::vector<double>& two,
         Terms&& terms) {
  const Index width = s.width();
  std::vector<double> sums(kBatchParts * 2 * width, 0.0);
  ForBlocks(s, run, [&](Index part, Index row, Index number) {
    double* own = sums.data() + part * 2 * width;
    ForVectors(width, [&](auto count, Index first) {
      constexpr int V = decltype(count)::value, U = 4 / V;
      Vector a[U][V], b[U][V];
      for (int u = 0; u < U; ++u)
        for (int v = 0; v < V; ++v) a[u][v] = b[u][v] = Vector{};
      const auto term = terms(count, first);
      Index r = 0;
      for (; r + U <= number; r += U)
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u) term((row + r + u) * width + first, a[u], b[u]);
      for (; r < number; ++r) term((row + r) * width + first, a[0], b[0]);
      for (int u = 0; u < U; ++u)
        for (int v = 0; v < V; ++v)
          for (int l = 0; l < kLanes; ++l) {
            own[first + v * kLanes + l] += a[u][v][l];
            own[width + first + v * kLanes + l] += b[u][v][l];
          }
    });
  });
  one.assign(s.channels, 0.0);
  two.assign(s.channels, 0.0);
  for (Index part = 0; part < kBatchParts; ++part)
    for (Index j = 0; j < width; ++j) {
      one[j % s.channels] += sums[part * 2 * width + j];
      two[j % s.channels] += sums[part * 2 * width + width + j];
    }
}

template <int V>
void LoadAll(const std::vector<float>& from, Index first, Vector (&to)[V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) to[v] = Load(from.data() + first + v * kLanes);
}

// x * slope + offset, or its positive part; slope and offset of a long row.
template <class Run>
void Affine(const Layer& s, const float* x, const std::vector<float>& slope_,
            const std::vector<float>& offset_, float* y, Run&& run) {
  const Index width = s.width();
  ForBlocks(s, run, [&](Index, Index row, Index number) {
    ForVectors(width, [&](auto count, Index first) {
      constexpr int V = decltype(count)::value;
      Vector slope[V], offset[V];
      LoadAll(slope_, first, slope);
      LoadAll(offset_, first, offset);
      for (Index r = row; r < row + number; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Index at = r * width + first + v * kLanes;
          const Vector value = Load(x + at) * slope[v] + offset[v];
          Store(y + at, s.relu ? Positive(value, value) : value);
        }
    });
  });
}

// The same, of a slope and an offset for each channel.
template <class Run>
void Affine(const Layer& s, const float* x, const float* slope, const float* offset,
            float* y, Run&& run) {
  std::vector<float> slopes(s.width()), offsets(s.width());
  for (Index j = 0; j < s.width(); ++j) {
    slopes[j] = slope[j % s.channels];
    offsets[j] = offset[j % s.channels];
  }
  Affine(s, x, slopes, offsets, y, run);
}

template <class Run>
void Normalise(const Layer& s, const float* x, const float* scale, const float* bias,
               float* y, float* mean, float* var, Run&& run) {
  // Less the first row, so that a mean far from 0 costs the variance no digits.
  std::vector<float> shift(s.width());
  for (Index j = 0; j < s.width(); ++j) shift[j] = x[j % s.channels];
  std::vector<double> sum, squares;
  Sum(s, run, sum, squares, [&](auto count, Index first) {
    constexpr int V = decltype(count)::value;
    struct Term {
      const float* x;
      Vector shift[V];
      void operator()(Index at, Vector* a, Vector* b) const {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Vector value = Load(x + at + v * kLanes) - shift[v];
          a[v] += value;
          b[v] += value * value;
        }
      }
    } term{x, {}};
    LoadAll(shift, first, term.shift);
    return term;
  });
  for (Index c = 0; c < s.channels; ++c) {
    const double m = sum[c] / s.rows;
    mean[c] = shift[c] + m;
    var[c] = std::max(squares[c] / s.rows - m * m, 0.0);  // NaN stays NaN
  }
  const Coefficients k(s, mean, var, scale, bias);
  Affine(s, x, k.slope, k.offset, y, run);
}

// The cotangents of x, scale and bias, from that of y.
template <class Run>
void NormaliseGradient(const Layer& s, const float* x, const float* scale,
                       const float* bias, const float* mean, const float* var,
                       const float* g, float* dx, float* dscale, float* dbias,
                       Run&& run) {
  const Coefficients k(s, mean, var, scale, bias);
  const Index width = s.width();
  std::vector<double> sum, products;
  Sum(s, run, sum, products, [&](auto count, Index first) {
    constexpr int V = decltype(count)::value;
    struct Term {
      const float *x, *g;
      bool relu;
      Vector mean[V], slope[V], offset[V];
      void operator()(Index at, Vector* a, Vector* b) const {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Vector value = Load(x + at + v * kLanes);
          Vector h = Load(g + at + v * kLanes);
          if (relu) h = Positive(h, value * slope[v] + offset[v]);
          a[v] += h;
          b[v] += h * (value - mean[v]);
        }
      }
    } term{x, g, s.relu, {}, {}, {}};
    LoadAll(k.mean, first, term.mean);
    LoadAll(k.slope, first, term.slope);
    LoadAll(k.offset, first, term.offset);
    return term;
  });
  std::vector<float> shift(width), tilt(width);
  for (Index j = 0; j < width; ++j) {
    const Index c = j % s.channels;
    const double inverse = 1 / std::sqrt(double{var[c]} + s.epsilon);
    dbias[c] = sum[c];
    dscale[c] = products[c] * inverse;
    shift[j] = sum[c] / s.rows;
    tilt[j] = products[c] * inverse * inverse / s.rows;
  }
  ForBlocks(s, run, [&](Index, Index row, Index number) {
    ForVectors(width, [&](auto count, Index first) {
      constexpr int V = decltype(count)::value;
      Vector mean_[V], slope[V], offset[V], shift_[V], tilt_[V];
      LoadAll(k.mean, first, mean_);
      LoadAll(k.slope, first, slope);
      LoadAll(k.offset, first, offset);
      LoadAll(shift, first, shift_);
      LoadAll(tilt, first, tilt_);
      for (Index r = row; r < row + number; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Index at = r * width + first + v * kLanes;
          const Vector value = Load(x + at);
          Vector h = Load(g + at);
          if (s.relu) h = Positive(h, value * slope[v] + offset[v]);
          Store(dx + at, slope[v] * (h - shift_[v] - (value - mean_[v]) * tilt_[v]));
        }
    });
  });
}

}  // namespace edp

#endif  // EDP_BATCH_NORM_H_
