// Messages to the caller's log.
#pragma once

#include <string>

#include "ov2vss/ov2vss.h"

namespace ov2vss {

void set_log(ov2vss_log_function function, void* user);
void log(ov2vss_log_level level, const std::string& message);

}  // namespace ov2vss
