#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "json.h"

namespace ov2vss {

namespace {

constexpr std::uint64_t kLargestHeader = 100'000'000;  // as the library has it

std::size_t size_of(const std::string& type) {
    static const std::map<std::string, std::size_t> sizes = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
        {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};
    const auto found = sizes.find(type);
    if (found == sizes.end()) throw std::invalid_argument("type " + type + " is not known");
    return found->second;
}

}  // namespace

Safetensors read_safetensors(std::string_view bytes) {
    if (bytes.size() < 8) throw std::invalid_argument("it ends in its header");
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<std::uint8_t>(bytes[i]);
    if (length > kLargestHeader || length > bytes.size() - 8) throw std::invalid_argument("it ends in its header");
    const Json header = Json::parse(bytes.substr(8, length));
    const std::string_view body = bytes.substr(8 + length);
    Safetensors found;
    for (const auto& [name, entry] : header.object()) {
        if (name == "__metadata__") {
            for (const auto& [key, value] : entry.object()) found.metadata[key] = value.text();
            continue;
        }
        Stored array;
        array.type = entry.at("dtype").text();
        std::uint64_t size = size_of(array.type);
        for (const Json& side : entry.at("shape").list()) {
            const std::int64_t count = side.integer();
            if (count < 0 || (count > 0 && size > bytes.size() / static_cast<std::uint64_t>(count)))
                throw std::invalid_argument(name + " is larger than the file");
            size *= static_cast<std::uint64_t>(count);
            array.shape.push_back(count);
        }
        const auto& offsets = entry.at("data_offsets").list();
        if (offsets.size() != 2) throw std::invalid_argument(name + " has no place");
        const std::int64_t begin = offsets[0].integer(), end = offsets[1].integer();
        if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > body.size() ||
            static_cast<std::uint64_t>(end - begin) != size)
            throw std::invalid_argument(name + " does not lie within the file");
        array.data = reinterpret_cast<const std::uint8_t*>(body.data()) + begin;
        array.bytes = size;
        if (!found.arrays.emplace(name, std::move(array)).second)
            throw std::invalid_argument(name + " stands there twice");
    }
    return found;
}

std::string write_safetensors(const Safetensors& content) {
    // The larger types come first, so that all arrays are aligned.
    std::vector<const std::pair<const std::string, Stored>*> order;
    for (const auto& item : content.arrays) order.push_back(&item);
    std::stable_sort(order.begin(), order.end(), [](const auto* one, const auto* other) {
        return size_of(one->second.type) > size_of(other->second.type);
    });
    std::string header = "{";
    if (!content.metadata.empty()) {
        header += "\"__metadata__\":{";
        bool first = true;
        for (const auto& [key, value] : content.metadata) {
            header += (first ? "" : ",") + json_quoted(key) + ":" + json_quoted(value);
            first = false;
        }
        header += "}";
    }
    std::size_t offset = 0;
    for (const auto* item : order) {
        if (header.size() > 1) header += ",";
        header += json_quoted(item->first) + ":{\"dtype\":\"" + item->second.type + "\",\"shape\":[";
        for (std::size_t i = 0; i < item->second.shape.size(); ++i)
            header += (i ? "," : "") + std::to_string(item->second.shape[i]);
        header +=
            "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + item->second.bytes) + "]}";
        offset += item->second.bytes;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
    bytes += header;
    for (const auto* item : order) bytes.append(reinterpret_cast<const char*>(item->second.data), item->second.bytes);
    return bytes;
}

}  // namespace ov2vss
