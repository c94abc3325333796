#include "outside_weights.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace ov2vss {

namespace {

// Kinds of messages of onnx.proto in which a tensor may lie.
enum class Kind { model, training, function, graph, node, attribute, sparse, tensor, other };

// The kind of message that a field of a message holds.
Kind inside(Kind kind, std::uint64_t field) {
    switch (kind) {
        case Kind::model:
            if (field == 7) return Kind::graph;
            if (field == 20) return Kind::training;
            return field == 25 ? Kind::function : Kind::other;
        case Kind::training: return field == 1 || field == 2 ? Kind::graph : Kind::other;
        case Kind::function:
            if (field == 7) return Kind::node;
            return field == 11 ? Kind::attribute : Kind::other;
        case Kind::graph:
            if (field == 1) return Kind::node;
            if (field == 5) return Kind::tensor;
            return field == 15 ? Kind::sparse : Kind::other;
        case Kind::node: return field == 5 ? Kind::attribute : Kind::other;
        case Kind::attribute:
            if (field == 5 || field == 10) return Kind::tensor;
            if (field == 6 || field == 11) return Kind::graph;
            return field == 22 || field == 23 ? Kind::sparse : Kind::other;
        case Kind::sparse: return field == 1 || field == 2 ? Kind::tensor : Kind::other;
        default: return Kind::other;
    }
}

constexpr std::uint64_t kExternalData = 13;  // of a tensor: where its values lie
constexpr std::uint64_t kDataLocation = 14;  // of a tensor: 1 where they lie outside

std::uint64_t varint(std::string_view data, std::size_t& at) {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70 && at < data.size(); shift += 7) {
        const auto byte = static_cast<std::uint8_t>(data[at++]);
        if (shift < 64) value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    throw std::invalid_argument("a number does not end");
}

}  // namespace

bool has_outside_weights(std::string_view graph) {
    std::vector<std::pair<Kind, std::string_view>> waiting{{Kind::model, graph}};
    while (!waiting.empty()) {
        const auto [kind, data] = waiting.back();
        waiting.pop_back();
        for (std::size_t at = 0; at < data.size();) {
            const std::uint64_t tag = varint(data, at), field = tag >> 3;
            std::uint64_t length = 0;
            switch (tag & 7) {
                case 0: {
                    const std::uint64_t value = varint(data, at);
                    if (kind == Kind::tensor && field == kDataLocation && value != 0) return true;
                    continue;
                }
                case 1: length = 8; break;
                case 2: length = varint(data, at); break;
                case 5: length = 4; break;
                default: throw std::invalid_argument("wire type " + std::to_string(tag & 7));
            }
            if (length > data.size() - at) throw std::invalid_argument("a field ends after its message");
            if ((tag & 7) == 2) {
                if (kind == Kind::tensor && field == kExternalData) return true;
                const Kind found = inside(kind, field);
                if (found != Kind::other) waiting.emplace_back(found, data.substr(at, length));
            }
            at += length;
        }
    }
    return false;
}

}  // namespace ov2vss
