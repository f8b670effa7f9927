// Convolutions and their gradients as products of patches. The patch of an output is
// what its taps read, [taps, taps, channels]; those of a group of rows of outputs are
// gathered first.
#ifndef EDP_GATHERED_H_
#define EDP_GATHERED_H_

#include "kernel_gradient.h"

namespace edp {

// Floats from patch to patch: a cache line more than a patch, so that neighbours do not
// fall into one set.
inline Index PatchStep(Index floats) { return floats + 16; }

// The patches of a row of `length` outputs of an image x [height, width, channels]: that
// of output w begins at row r and column w * stride + column, both maybe outside.
inline void GatherRow(const float* x, Index height, Index width, Index channels,
                      Index taps, Index stride, Index r, Index column, Index length,
                      float* patches, Index step) {
  for (Index i = 0; i < taps; ++i) {
    const bool inside = r + i >= 0 && r + i < height;
    const float* row = x + (r + i) * width * channels;
    float* to = patches + i * taps * channels;
    for (Index w = 0; w < length; ++w, to += step) {
      const Index from = w * stride + column;
      if (inside && from >= 0 && from + taps <= width) {
        std::memcpy(to, row + from * channels, taps * channels * sizeof(float));
      } else {
        for (Index j = 0; j < taps; ++j) {
          if (inside && from + j >= 0 && from + j < width)
            std::memcpy(to + j * channels, row + (from + j) * channels,
                        channels * sizeof(float));
          else
            std::fill_n(to + j * channels, channels, 0.0f);
        }
      }
    }
  }
}

// As Convolve.
template <class Run>
void ConvolveGathered(const Shape& s, const float* x, const float* kernels,
                      bool gradient, float* y, Run&& run) {
  const float* packed = PackAll(s, kernels, gradient, gradient, run);
  const Index in = gradient ? s.features : s.channels;
  const Index out = gradient ? s.channels : s.features;
  const Index patch = s.taps * s.taps * in, step = PatchStep(patch);
  const Index inputs = patch / s.interleaved, size = PackedSize(1, inputs, out);
  const RowGroups rows(s.out_width);
  const Index floats = s.out_width * out;
  ForBands(s, s.out_height, run, [&](Index member, Index begin, Index end, Index top,
                                     Index bottom) {
    float* patches = Scratch(Use::kInputs, rows.most() * step);
    float* outputs = Scratch(Use::kOutputs, rows.most() * out);
    std::array<float*, RowGroups::kTogether> to;
    Row row{{}, 1, inputs, step, out, out, 0, s.interleaved, packed + member * size, 1,
            outputs};
    row.taps[0] = {patches, 0};
    rows.For(s, member, begin, end, top, bottom, [&](Index n, Index r, Index i) {
      GatherRow(x + n * s.height * s.width * in, s.height, s.width, in, s.taps, s.stride,
                r * s.stride - s.pad(), -s.pad(), s.out_width,
                patches + i * s.out_width * step, step);
      to[i] = y + (n * s.out_height + r) * floats;
    }, [&](Index number) {
      row.count = number * s.out_width;
      Outputs(row);
      for (Index i = 0; i < number; ++i)
        std::memcpy(to[i], outputs + i * floats, floats * sizeof(float));
    });
  });
}

// The cotangent of the input of a convolution with a stride of 2. Its pixels of even and
// odd rows and columns meet different taps, of the cotangents at the same place of the
// outputs and at the next.
template <class Run>
void InputGradientGathered(const Shape& s, const float* g, const float* kernels,
                           float* dx, Run&& run) {
  const float* packed = PackAll(s, kernels, true, false, run);
  const Index all = s.taps * s.taps, in = s.features / s.interleaved;
  const Index near = (s.taps + 1) / 2, patch = near * near * s.features;
  const Index step = PatchStep(patch), size = PackedSize(all, in, s.channels);
  const RowGroups rows(s.out_width);
  ForBands(s, s.out_height, run, [&](Index member, Index begin, Index end, Index top,
                                     Index bottom) {
    float* patches = Scratch(Use::kInputs, rows.most() * step);
    float* outputs = Scratch(Use::kOutputs, rows.most() * s.channels);
    std::array<std::pair<Index, Index>, RowGroups::kTogether> place;  // image, row
    Row row{{}, 0, in, step, s.channels, s.channels, 0, s.interleaved,
            packed + member * size, all, outputs};
    rows.For(s, member, begin, end, top, bottom, [&](Index n, Index r, Index i) {
      GatherRow(g + n * s.out_height * s.out_width * s.features, s.out_height,
                s.out_width, s.features, near, 1, r, 0, s.out_width,
                patches + i * s.out_width * step, step);
      place[i] = {n, r};
    }, [&](Index number) {
      row.count = number * s.out_width;
      for (Index down = 0; down < 2; ++down)
        for (Index right = 0; right < 2; ++right) {
          row.num_taps = 0;
          for (Index i = (down + s.pad()) % 2; i < s.taps; i += 2)
            for (Index j = (right + s.pad()) % 2; j < s.taps; j += 2) {
              const Index below = (down + s.pad() - i) / 2;
              const Index beside = (right + s.pad() - j) / 2;
              row.taps[row.num_taps++] = {
                  patches + (below * near + beside) * s.features, i * s.taps + j};
            }
          if (row.num_taps)
            Outputs(row);
          else
            std::fill_n(outputs, row.count * s.channels, 0.0f);
          for (Index i = 0; i < number; ++i) {
            const auto [n, r] = place[i];
            if (2 * r + down >= s.height) continue;
            float* to = dx + ((n * s.height + 2 * r + down) * s.width + right) *
                                 s.channels;
            const float* from = outputs + i * s.out_width * s.channels;
            for (Index w = right; w < s.width;
                 w += 2, to += 2 * s.channels, from += s.channels)
              std::memcpy(to, from, s.channels * sizeof(float));
          }
        }
    });
  });
}

template <class Run>
void KernelGradientGathered(const Shape& s, const float* x, const float* g, float* dk,
                            Run&& run) {
  const Index patch = s.taps * s.taps * s.channels, step = PatchStep(patch);
  const Index inputs = patch / s.interleaved;
  const Index vectors = Vectors(s.features), width = vectors * kLanes;
  const RowGroups rows(s.out_width);
  SumInParts(s, inputs * width, run, [&](Index member, Index begin, Index end,
                                         float* sums) {
    float* patches = Scratch(Use::kInputs, rows.most() * step);
    float* cotangents = Scratch(Use::kOutputs, rows.most() * width);
    std::fill_n(cotangents, rows.most() * width, 0.0f);
    rows.For(s, member, begin, end, 0, s.out_height, [&](Index n, Index r,
                                                               Index i) {
      GatherRow(x + n * s.height * s.width * s.channels, s.height, s.width, s.channels,
                s.taps, s.stride, r * s.stride - s.pad(), -s.pad(), s.out_width,
                patches + i * s.out_width * step, step);
      const float* from = g + (n * s.out_height + r) * s.out_width * s.features;
      for (Index w = 0; w < s.out_width; ++w)
        std::memcpy(cotangents + (i * s.out_width + w) * width, from + w * s.features,
                    s.features * sizeof(float));
    }, [&](Index number) {
      const Positions positions{patches, 0, step, cotangents, 0, width,
                                1, number * s.out_width, width, s.interleaved};
      AddAllProducts(positions, inputs, vectors, sums);
    });
  }, [&](Index member, const float* sums) {
    Separate(sums, inputs, width, s.features, s.interleaved,
             dk + member * inputs * s.features);
  });
}

}  // namespace edp

#endif  // EDP_GATHERED_H_
