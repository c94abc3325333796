// How many processor threads this process should use.
#pragma once

namespace ov2vss {

// Physical cores that the process may use, by affinity and by the quota of its control group.
int available_threads();

}  // namespace ov2vss
