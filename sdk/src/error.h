// What a caller can act on: what is wrong and where, and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

#include "ov2vss/ov2vss.h"

namespace ov2vss {

class Error : public std::runtime_error {
public:
    // `problem` names the file, line or value; `remedy` is an imperative without a full stop, or empty.
    Error(ov2vss_status status, const std::string& problem, const std::string& remedy)
        : std::runtime_error(remedy.empty() ? problem : problem + "; " + remedy), status_(status) {}

    ov2vss_status status() const noexcept { return status_; }

private:
    ov2vss_status status_;
};

inline Error argument_error(const std::string& problem, const std::string& remedy) {
    return {OV2VSS_ERROR_ARGUMENT, problem, remedy};
}
inline Error bundle_error(const std::string& problem, const std::string& remedy) {
    return {OV2VSS_ERROR_BUNDLE, problem, remedy};
}
inline Error vocabulary_error(const std::string& problem, const std::string& remedy) {
    return {OV2VSS_ERROR_VOCABULARY, problem, remedy};
}
inline Error engine_error(const std::string& problem, const std::string& remedy) {
    return {OV2VSS_ERROR_ENGINE, problem, remedy};
}
inline Error state_error(const std::string& problem, const std::string& remedy) {
    return {OV2VSS_ERROR_STATE, problem, remedy};
}

}  // namespace ov2vss
