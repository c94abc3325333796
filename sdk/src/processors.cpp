#include "processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>

namespace ov2vss {

namespace {

std::string first_line(const std::string& path) {
    std::ifstream stream(path);
    std::string line;
    std::getline(stream, line);
    return line;
}

// Processors that the quota of the control group (version 2, then 1) makes up, or a large number.
int quota() {
    double most = 0, period = 0;
    std::ifstream stream("/sys/fs/cgroup/cpu.max");
    std::string word;
    if (stream >> word >> period) {
        if (word == "max") return 1 << 20;
        most = std::atof(word.c_str());
    } else {
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> most;
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
    }
    return most > 0 && period > 0 ? std::max(1, static_cast<int>(std::ceil(most / period))) : 1 << 20;
}

}  // namespace

int available_threads() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
    std::set<std::string> cores;
    for (int number = 0; number < CPU_SETSIZE; ++number) {
        if (!CPU_ISSET(number, &allowed)) continue;
        const std::string siblings =
            first_line("/sys/devices/system/cpu/cpu" + std::to_string(number) + "/topology/thread_siblings_list");
        cores.insert(siblings.empty() ? "cpu " + std::to_string(number) : siblings);
    }
    return std::max(1, std::min(static_cast<int>(cores.size()), quota()));
}

}  // namespace ov2vss
