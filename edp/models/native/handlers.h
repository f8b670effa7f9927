// Types and functions of XLA's custom calls, which are compiled in two parts at once.
#ifndef EDP_HANDLERS_H_
#define EDP_HANDLERS_H_

#include "best.h"
#include "pool.h"

namespace handlers {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;
using Dimensions = ffi::Span<const std::int64_t>;

// Of x [N, H, W, C G], kernels [M G, taps, taps, C, F] and y [N, H', W', F G], where the
// channels of G members alternate, 1 or 4.
inline ffi::ErrorOr<edp::Shape> ShapeOf(Dimensions x, Dimensions k, Dimensions y,
                                        std::int64_t stride) {
  if (x.size() != 4 || k.size() != 5 || y.size() != 4)
    return ffi::Unexpected(ffi::Error::InvalidArgument("wrong ranks"));
  const std::int64_t interleaved = k[3] > 0 ? x[3] / k[3] : 0;
  if (interleaved != 1 && interleaved != 4)
    return ffi::Unexpected(ffi::Error::InvalidArgument("channels do not fit"));
  const edp::Shape s{x[0], x[1], x[2], x[3],   y[1],  y[2],
                     y[3], k[1], stride, k[0] / interleaved, interleaved};
  const auto out = [&](std::int64_t size) {
    return (size + 2 * s.pad() - s.taps) / stride + 1;
  };
  if ((s.taps != 1 && s.taps != 3) || (stride != 1 && stride != 2) || k[2] != s.taps ||
      k[3] * interleaved != s.channels || k[4] * interleaved != s.features ||
      k[0] % interleaved || y[0] != s.images || s.members < 1 ||
      s.images % s.members || s.height < 1 || s.width < 1 ||
      s.out_height != out(s.height) || s.out_width != out(s.width))
    return ffi::Unexpected(ffi::Error::InvalidArgument("shapes do not fit"));
  return s;
}

inline auto OfTwo() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<std::int64_t>("stride");
}

}  // namespace handlers

#endif  // EDP_HANDLERS_H_
