// Tasks on XLA's own thread pool.
#ifndef EDP_POOL_H_
#define EDP_POOL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "lanes.h"
#include "xla/ffi/api/ffi.h"

namespace edp {

// Calls f(0), ..., f(tasks - 1), some of them on threads of the pool. The calling thread
// takes its share and waits only for what has begun, so that a busy pool delays nothing.
class Pool {
 public:
  explicit Pool(xla::ffi::ThreadPool& threads) : threads_(threads) {}

  template <class F>
  void operator()(Index tasks, F&& f) {
    auto work = std::make_shared<Work>();
    work->tasks = tasks;
    work->f = [&f](Index i) { f(i); };
    const Index helpers = std::min(tasks, Index{threads_.num_threads()}) - 1;
    for (Index i = 0; i < helpers; ++i)
      threads_.Schedule([work] { work->Take(); });
    work->Take();
    work->Wait();
  }

 private:
  // Outlives the call: a helper may begin when nothing is left.
  struct Work {
    std::atomic<Index> next{0}, done{0};
    Index tasks = 0;
    std::function<void(Index)> f;
    std::mutex mutex;
    std::condition_variable finished;

    void Take() {
      for (Index i; (i = next.fetch_add(1)) < tasks;) {
        f(i);
        if (done.fetch_add(1) + 1 == tasks) {
          const std::lock_guard<std::mutex> lock(mutex);
          finished.notify_all();
        }
      }
    }

    void Wait() {
      for (int i = 0; i < 2000 && done.load() < tasks; ++i) __builtin_ia32_pause();
      std::unique_lock<std::mutex> lock(mutex);
      finished.wait(lock, [this] { return done.load() == tasks; });
    }
  };

  xla::ffi::ThreadPool& threads_;
};

}  // namespace edp

#endif  // EDP_POOL_H_
