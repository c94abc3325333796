// Arrays that graphs give to each other, by name.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "module.h"

namespace ov2vss {

inline std::size_t bytes_of(int type) {
    switch (type) {
        case OV2VSS_INT64: return 8;
        case OV2VSS_UINT8: return 1;
        case OV2VSS_FLOAT16: return 2;
        default: return 4;
    }
}

// Memory that several arrays may share; copies of a Tensor are the same array.
struct Tensor {
    int type = OV2VSS_FLOAT32;
    std::vector<std::int64_t> shape;
    std::shared_ptr<void> data;

    static Tensor empty(int type, std::vector<std::int64_t> shape) {
        Tensor made{type, std::move(shape), nullptr};
        const std::size_t size = (made.bytes() + 63) / 64 * 64;
        void* memory = std::aligned_alloc(64, size ? size : 64);
        if (!memory) throw std::bad_alloc();
        made.data = std::shared_ptr<void>(memory, std::free);
        return made;
    }
    static Tensor of(const void* data, int type, std::vector<std::int64_t> shape) {
        return {type, std::move(shape), std::shared_ptr<void>(const_cast<void*>(data), [](void*) {})};
    }

    std::size_t count() const {
        std::size_t found = 1;
        for (const std::int64_t side : shape) found *= static_cast<std::size_t>(side);
        return found;
    }
    std::size_t bytes() const { return count() * bytes_of(type); }
    float* floats() const { return static_cast<float*>(data.get()); }
    bool known() const { return data != nullptr; }
};

using Tensors = std::map<std::string, Tensor>;

}  // namespace ov2vss
