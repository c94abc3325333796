#include "log.h"

#include <mutex>

namespace ov2vss {

namespace {

std::mutex lock;
ov2vss_log_function listener = nullptr;
void* listening = nullptr;

}  // namespace

void set_log(ov2vss_log_function function, void* user) {
    const std::lock_guard<std::mutex> held(lock);
    listener = function;
    listening = user;
}

void log(ov2vss_log_level level, const std::string& message) {
    ov2vss_log_function function = nullptr;
    void* user = nullptr;
    {
        const std::lock_guard<std::mutex> held(lock);
        function = listener;
        user = listening;
    }
    if (function) function(level, message.c_str(), user);
}

}  // namespace ov2vss
