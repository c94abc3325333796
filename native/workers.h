// Work shared out among threads, which may be fewer than asked for.
#pragma once

#include <system_error>
#include <thread>
#include <vector>

namespace ov2vss {

// run(0) .. run(workers - 1), each once, side by side. Where the system gives no further thread, the caller's own does
// the work that is left: a thread that cannot be started must not end the process.
template <typename Run>
void share_out(int workers, Run&& run) {
    std::vector<std::thread> pool;
    pool.reserve(workers > 1 ? workers - 1 : 0);
    int started = 1;
    try {
        for (; started < workers; ++started) pool.emplace_back(run, started);
    } catch (const std::system_error&) {
    }
    run(0);
    for (; started < workers; ++started) run(started);
    for (auto& thread : pool) thread.join();
}

}  // namespace ov2vss
