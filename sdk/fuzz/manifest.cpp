// Any bytes as manifest.json: taken, or refused with an Error.
#include <cstdint>

#include "bundle.h"
#include "error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        ov2vss::Manifest::parse({reinterpret_cast<const char*>(data), size}, "manifest.json");
    } catch (const ov2vss::Error&) {
    }
    return 0;
}
