// Runs every kernel on small shapes within exactly sized memory and on several threads,
// to be compiled with the compiler's sanitizers, and compares it with sums in double
// precision.

#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>

#include "batch_norm.h"
#include "best.h"

namespace {

using edp::Index;
using Floats = std::unique_ptr<float[]>;

// Tasks in any order, as on XLA's threads.
struct OnThreads {
  template <class F>
  void operator()(Index tasks, F&& f) const {
    std::atomic<Index> next{0};
    const auto take = [&] {
      for (Index i; (i = next.fetch_add(1)) < tasks;) f(i);
    };
    std::thread one(take), two(take);
    take();
    one.join();
    two.join();
  }
};

Floats Draw(Index size) {
  static std::mt19937 generator(0);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Floats values(new float[size]);
  for (Index i = 0; i < size; ++i) values[i] = uniform(generator);
  return values;
}

bool Same(const char* what, const float* got, const std::vector<double>& wanted) {
  double error = 0, most = 1e-30;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double one = std::abs(got[i] - wanted[i]);
    error = std::isnan(one) ? INFINITY : std::max(error, one);
    most = std::max(most, std::abs(wanted[i]));
  }
  if (error <= 1e-5 * most) return true;
  std::printf("%s is off by %g\n", what, error / most);
  return false;
}

// With the channels of G members alternating, or one member after another.
bool Convolution(Index members, Index batch, Index height, Index width, Index channels,
                 Index features, Index taps, Index stride, Index G = 1) {
  const auto out = [&](Index size) { return (size - 1) / stride + 1; };
  const edp::Shape s{members * batch, height, width,  channels, out(height), out(width),
                     features,        taps,   stride, members,  G};
  const Index in = s.images * height * width * channels;
  const Index end = s.images * s.out_height * s.out_width * features;
  const Index size = members * taps * taps * channels * features / G;
  const Floats x = Draw(in), k = Draw(size), g = Draw(end);
  const Floats y(new float[end]), dx(new float[in]), dk(new float[size]);
  // Each in a new thread, whose scratch memory is no larger than it asks for.
  std::thread([&] {
    edp::BestConvolve(s, x.get(), k.get(), y.get(), OnThreads());
  }).join();
  std::thread([&] {
    edp::BestInputGradient(s, g.get(), k.get(), dx.get(), OnThreads());
  }).join();
  std::thread([&] {
    edp::BestKernelGradient(s, x.get(), g.get(), dk.get(), OnThreads());
  }).join();
  std::vector<double> wanted_y(end), wanted_dx(in), wanted_dk(size);
  Index at = 0;
  for (Index n = 0; n < s.images; ++n)
    for (Index h = 0; h < s.out_height; ++h)
      for (Index w = 0; w < s.out_width; ++w)
        for (Index o = 0; o < features; ++o, ++at)
          for (Index i = 0; i < taps; ++i)
            for (Index j = 0; j < taps; ++j) {
              const Index r = h * stride + i - s.pad(), c = w * stride + j - s.pad();
              if (r < 0 || c < 0 || r >= height || c >= width) continue;
              for (Index q = o % G; q < channels; q += G) {
                const Index from = ((n * height + r) * width + c) * channels + q;
                const Index kernel = n % members * G + o % G;
                const Index tap = (kernel * taps + i) * taps + j;
                const Index by = (tap * channels / G + q / G) * (features / G) + o / G;
                wanted_y[at] += double{x[from]} * k[by];
                wanted_dx[from] += double{g[at]} * k[by];
                wanted_dk[by] += double{g[at]} * x[from];
              }
            }
  return Same("a convolution", y.get(), wanted_y) &
         Same("an input gradient", dx.get(), wanted_dx) &
         Same("a kernel gradient", dk.get(), wanted_dk);
}

bool Normalisation(Index rows, Index channels, bool relu) {
  const edp::Layer s{rows, channels, relu, 1e-5f};
  const Index size = rows * channels;
  const Floats x = Draw(size), scale = Draw(channels), bias = Draw(channels);
  const Floats g = Draw(size), y(new float[size]), dx(new float[size]);
  const Floats mean(new float[channels]), var(new float[channels]);
  const Floats dscale(new float[channels]), dbias(new float[channels]);
  edp::Normalise(s, x.get(), scale.get(), bias.get(), y.get(), mean.get(), var.get(),
                 OnThreads());
  edp::NormaliseGradient(s, x.get(), scale.get(), bias.get(), mean.get(), var.get(),
                         g.get(), dx.get(), dscale.get(), dbias.get(), OnThreads());
  std::vector<double> wanted_y(size), wanted_dx(size), sums(channels), products(channels);
  std::vector<double> wanted_affine(size);
  const Floats affine(new float[size]);
  edp::Affine(s, x.get(), scale.get(), bias.get(), affine.get(), OnThreads());
  for (Index i = 0; i < size; ++i) {
    const double value = double{x[i]} * scale[i % channels] + bias[i % channels];
    wanted_affine[i] = relu ? std::max(value, 0.0) : value;
  }
  for (Index c = 0; c < channels; ++c) {
    double m = 0, v = 0;
    for (Index r = 0; r < rows; ++r) m += x[r * channels + c] / double(rows);
    for (Index r = 0; r < rows; ++r)
      v += (x[r * channels + c] - m) * (x[r * channels + c] - m) / rows;
    const double inverse = 1 / std::sqrt(v + 1e-5);
    std::vector<double> h(rows), unit(rows);
    for (Index r = 0; r < rows; ++r) {
      unit[r] = (x[r * channels + c] - m) * inverse;
      const double value = scale[c] * unit[r] + bias[c];
      wanted_y[r * channels + c] = relu ? std::max(value, 0.0) : value;
      h[r] = relu && value <= 0 ? 0 : g[r * channels + c];
      sums[c] += h[r];
      products[c] += h[r] * unit[r];
    }
    for (Index r = 0; r < rows; ++r)
      wanted_dx[r * channels + c] =
          scale[c] * inverse * (h[r] - (sums[c] + unit[r] * products[c]) / rows);
  }
  return Same("a normalisation", y.get(), wanted_y) &
         Same("an affine function", affine.get(), wanted_affine) &
         Same("its gradient", dx.get(), wanted_dx) &
         Same("the bias's", dbias.get(), sums) &
         Same("the scale's", dscale.get(), products);
}

}  // namespace

int main() {
  bool good = true;
  for (Index taps : {1, 3})
    for (Index stride : {1, 2})
      for (Index width : {1, 2, 7, 16, 29})
        for (Index channels : {3, 8, 16, 24})
          for (Index features : {8, 16, 40})
            good &= Convolution(2, 3, 5, width, channels, features, taps, stride);
  for (Index height : {8, 9})
    for (Index width : {1, 2, 7, 32, 33})
      for (Index channels : {16, 48}) {
        const Index batch = 512 / (height * width) + 1;
        good &= Convolution(2, batch, height, width, channels, 64 - channels, 3, 1);
      }
  // Rows of several images at once, and rows that are a group by themselves.
  good &= Convolution(2, 300, 3, 3, 16, 48, 3, 1);
  good &= Convolution(1, 1, 6, 97, 16, 48, 3, 1);
  good &= Convolution(2, 40, 5, 7, 16, 24, 3, 2);
  good &= Convolution(2, 20, 5, 7, 40, 56, 3, 2);
  good &= Convolution(1, 2, 5, 7, 128, 136, 1, 2);
  good &= Convolution(1, 1, 3, 99, 40, 56, 3, 2);
  good &= Convolution(1, 20, 5, 7, 64, 128, 3, 2, 4);
  for (Index taps : {1, 3})
    for (Index stride : {1, 2})
      for (Index width : {2, 7, 29})
        for (Index channels : {12, 16, 32})
          for (Index features : {8, 32, 48})
            good &= Convolution(1, 40, 5, width, channels, features, taps, stride, 4);
  // Of few images, whose rows are divided among the threads.
  good &= Convolution(1, 1, 33, 21, 48, 32, 3, 1);
  good &= Convolution(1, 2, 15, 17, 40, 56, 3, 1);
  for (Index width : {28, 30})  // gathered with AVX2 and with AVX-512
    good &= Convolution(1, 1, 33, width, 40, 56, 3, 2);
  for (Index rows : {6, 34, 4098})
    for (Index channels : {8, 16, 48, 128})
      for (bool relu : {false, true}) good &= Normalisation(rows, channels, relu);
  return good ? 0 : 1;
}
