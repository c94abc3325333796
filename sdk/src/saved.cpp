// A stream's memory as bytes: a safetensors file of arrays, and what is no array as JSON in its header. Without
// propagation the Python runtime reads and writes the same.
#include <charconv>
#include <cstring>
#include <stdexcept>

#include "error.h"
#include "json.h"
#include "safetensors.h"
#include "stream.h"

namespace ov2vss {

namespace {

const char* const kKey = "ov2vss_stream";
const char* const kPolicies[] = {"first", "farthest", "reservoir"};

std::string number_text(double value) {
    if (std::isnan(value)) return "null";
    char text[32];
    const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
    std::string found(text, end);
    if (found.find_first_of(".en") == std::string::npos) found += ".0";
    return found;
}

double number_of(const Json& value) {
    return value.is(Json::Kind::null) ? std::numeric_limits<double>::quiet_NaN() : value.number();
}

std::string list_text(const std::vector<std::string>& names) {
    std::string found = "[";
    for (std::size_t i = 0; i < names.size(); ++i) found += (i ? ", " : "") + json_quoted(names[i]);
    return found + "]";
}

const char* type_name(int type) {
    switch (type) {
        case OV2VSS_INT64: return "I64";
        case OV2VSS_UINT8: return "U8";
        case OV2VSS_FLOAT16: return "F16";
        default: return "F32";
    }
}

Stored stored(const Tensor& tensor) {
    return {type_name(tensor.type), tensor.shape, static_cast<const std::uint8_t*>(tensor.data.get()), tensor.bytes()};
}

template <typename Value>
Stored stored(const std::vector<Value>& values, const char* type, std::vector<std::int64_t> shape) {
    return {type, std::move(shape), reinterpret_cast<const std::uint8_t*>(values.data()),
            values.size() * sizeof(Value)};
}

// What a stream saved, as far as it has been checked.
class Reader {
public:
    explicit Reader(const Safetensors& content) : content_(content) {}

    const Stored* find(const std::string& name) const {
        const auto found = content_.arrays.find(name);
        return found == content_.arrays.end() ? nullptr : &found->second;
    }
    // An array of the type and shape that the bundle gives it.
    Tensor tensor(const std::string& name, int type, const std::vector<std::int64_t>& shape) const {
        const Stored* found = find(name);
        if (!found || found->type != type_name(type) || found->shape != shape) throw std::invalid_argument(name);
        Tensor made = Tensor::empty(type, shape);
        std::memcpy(made.data.get(), found->data, found->bytes);
        return made;
    }
    template <typename Value>
    std::vector<Value> values(const std::string& name, const char* type, std::size_t count) const {
        const Stored* found = find(name);
        if (!found || found->type != type || found->bytes != count * sizeof(Value)) throw std::invalid_argument(name);
        std::vector<Value> made(count);
        std::memcpy(made.data(), found->data, found->bytes);
        return made;
    }

private:
    const Safetensors& content_;
};

}  // namespace

std::string Stream::save() const {
    const StreamState& s = state_;
    Safetensors content;
    auto add = [&](const std::string& prefix, const Tensors& tensors) {
        for (const auto& [name, tensor] : tensors) content.arrays[prefix + "/" + name] = stored(tensor);
    };
    std::string ring;
    std::size_t place = 0;
    for (const auto& [number, state] : s.ring) {
        add("ring/" + std::to_string(place), state);
        ring += (place++ ? ", " : "") + std::to_string(number);
    }
    std::string times;
    for (const auto& [name, seen] :
         {std::pair("first", &s.first), std::pair("last", &s.last), std::pair("kept", &s.kept)}) {
        if (!*seen) continue;
        add(std::string("distant/") + name, (*seen)->context);
        times += (times.empty() ? "\"" : ", \"") + std::string(name) + "\": " + number_text((*seen)->time);
    }
    if (options_.reset_on_cut && !s.cut_tokens.empty())
        content.arrays["cut/tokens"] = stored(s.cut_tokens, "F32", engine_->cut()->shape);
    const std::vector<std::int64_t> age = {pruner_ ? pruner_->age() : 0};
    if (pruner_ && !pruner_->chosen().empty()) {
        content.arrays["pruner/nearest"] =
            stored(pruner_->nearest(), "F32", {static_cast<std::int64_t>(pruner_->nearest().size())});
        content.arrays["pruner/active"] =
            stored(pruner_->chosen(), "I64", {static_cast<std::int64_t>(pruner_->chosen().size())});
        content.arrays["pruner/age"] = stored(age, "I64", {});
    }
    const std::vector<std::int64_t> past_classes(past_classes_.begin(), past_classes_.end());
    if (propagator_ && !propagator_->picture_.empty()) {
        const Propagator& past = *propagator_;
        content.arrays["past/picture"] =
            stored(past.picture_, "U8", {engine_->manifest().height, engine_->manifest().width, 3});
        if (past.past_.known()) {
            content.arrays["past/past"] = stored(past.past_);
            content.arrays["past/flow"] = stored(past.motion_.flow, "F32", {past.motion_.h, past.motion_.w, 2});
            content.arrays["past/trust"] = stored(past.motion_.trust, "F32", {past.motion_.h, past.motion_.w});
            content.arrays["past/classes"] =
                stored(past_classes, "I64", {static_cast<std::int64_t>(past_classes.size())});
        }
    }
    std::string latest = "null";
    std::vector<std::int64_t> classes;
    if (s.latest) {
        const Latest& l = *s.latest;
        classes.assign(l.classes.begin(), l.classes.end());
        content.arrays["latest/labels"] = stored(l.labels, l.label_bytes == 1 ? "U8" : "U16", {l.height, l.width});
        if (!l.confidence.empty())
            content.arrays["latest/confidence"] = stored(l.confidence, "F32", {l.height, l.width});
        content.arrays["latest/logits"] = stored(l.logits);
        content.arrays["latest/classes"] = stored(classes, "I64", {static_cast<std::int64_t>(classes.size())});
        latest = "[" + std::to_string(l.index) + ", " + number_text(l.time) + ", " + list_text(l.names) + "]";
    }
    std::string random;
    for (const std::uint32_t word : s.random.state()) random += (random.empty() ? "" : ", ") + std::to_string(word);
    const Manifest& m = engine_->manifest();
    content.metadata[kKey] =
        "{\"format\": 1, \"model\": " + json_quoted(engine_->identity()) + ", \"size\": [" + std::to_string(m.height) +
        ", " + std::to_string(m.width) + "], \"gap\": " + std::to_string(gap_) + ", \"distant\": \"" +
        kPolicies[options_.distant] + "\", \"smooth\": " + (options_.smooth ? "true" : "false") +
        ", \"keyframes\": " + (keyframes_ == OV2VSS_KEYFRAMES_AUTO ? "\"auto\"" : std::to_string(keyframes_)) +
        ", \"index\": " + std::to_string(s.index) + ", \"computed\": " + std::to_string(s.computed) + ", \"ring\": [" +
        ring + "], \"times\": {" + times + "}, \"seen\": " + std::to_string(s.seen) + ", \"random\": [3, [" + random +
        "], null], \"names\": " + list_text(words_->names) + ", \"latest\": " + latest + "}";
    return write_safetensors(content);
}

void Stream::load(std::string_view bytes) {
    const Manifest& m = engine_->manifest();
    auto differs = [](const char* name) {
        return state_error(std::string("the saved stream has another ") + name + " than this one",
                           "load it into a stream that was made alike");
    };
    try {
        const Safetensors content = read_safetensors(bytes);
        const auto found = content.metadata.find(kKey);
        if (found == content.metadata.end()) throw std::invalid_argument("no stream");
        const Json facts = Json::parse(found->second);
        const Reader read(content);
        if (facts.at("format").integer() != 1) throw std::invalid_argument("format");
        if (facts.at("model").text() != engine_->identity()) throw differs("model or engine");
        const auto& size = facts.at("size").list();
        if (size.size() != 2 || size[0].integer() != m.height || size[1].integer() != m.width) throw differs("size");
        if (facts.at("gap").integer() != gap_) throw differs("gap");
        if (facts.at("distant").text() != kPolicies[options_.distant]) throw differs("distant frame");
        if (facts.at("smooth").boolean() != (options_.smooth != 0)) throw differs("smooth");
        const Json& keyframes = facts.at("keyframes");
        if (keyframes.is(Json::Kind::text) ? keyframes_ != OV2VSS_KEYFRAMES_AUTO : keyframes.integer() != keyframes_)
            throw differs("keyframes");

        StreamState next(options_.seed);
        next.index = facts.at("index").integer();
        next.computed = facts.at("computed").integer();
        if (next.index < 0 || next.index > (std::int64_t{1} << 53)) throw std::invalid_argument("index");
        const auto& ring = facts.at("ring").list();
        if (!ring.empty() && ring.size() != static_cast<std::size_t>(ring_size())) throw std::invalid_argument("ring");
        for (std::size_t place = 0; place < ring.size(); ++place) {
            Tensors state;
            if (m.state)
                state[m.state->input] =
                    read.tensor("ring/" + std::to_string(place) + "/" + m.state->input, m.state->type, m.state->shape);
            next.ring.emplace_back(ring[place].integer(), std::move(state));
        }
        const auto& outputs = engine_->variant().graphs.at("backbone").outputs;
        for (const auto& [name, time] : facts.at("times").object()) {
            Seen seen;
            seen.time = number_of(time);
            for (const TensorInfo& info : outputs)
                for (const std::string& wanted : engine_->wiring().distant)
                    if (info.name == wanted)
                        seen.context[wanted] = read.tensor("distant/" + name + "/" + wanted, info.type, info.shape);
            (name == "first" ? next.first : name == "last" ? next.last : next.kept) = std::move(seen);
        }
        next.seen = static_cast<std::uint64_t>(facts.at("seen").integer());
        std::vector<std::uint32_t> words;
        for (const Json& word : facts.at("random").list().at(1).list())
            words.push_back(static_cast<std::uint32_t>(word.integer()));
        if (!next.random.set_state(words)) throw std::invalid_argument("random");
        if (options_.reset_on_cut && read.find("cut/tokens")) {
            const Tensor tokens = read.tensor("cut/tokens", OV2VSS_FLOAT32, engine_->cut()->shape);
            next.cut_tokens.assign(tokens.floats(), tokens.floats() + tokens.count());
        }
        std::vector<std::string> names;
        for (const Json& name : facts.at("names").list()) names.push_back(name.text());
        const bool same = names == words_->names;
        auto class_list = [&](const std::string& name, const std::vector<std::string>& of) {
            const Stored* stored = read.find(name);
            if (!stored || stored->bytes / 8 > (1u << 20)) throw std::invalid_argument(name);
            std::vector<int> classes;
            for (const std::int64_t value : read.values<std::int64_t>(name, "I64", stored->bytes / 8)) {
                if (value < -1 || value >= static_cast<std::int64_t>(of.size())) throw std::invalid_argument(name);
                classes.push_back(static_cast<int>(value));
            }
            return classes;
        };
        const std::int64_t grid_height = engine_->wiring().grid_height, grid_width = engine_->wiring().grid_width;
        if (const Json& latest = facts.at("latest"); !latest.is(Json::Kind::null)) {
            Latest l;
            l.index = latest.list().at(0).integer();
            l.time = number_of(latest.list().at(1));
            for (const Json& name : latest.list().at(2).list()) l.names.push_back(name.text());
            const Stored* labels = read.find("latest/labels");
            if (!labels || labels->shape.size() != 2 || labels->shape[0] < 1 || labels->shape[1] < 1 ||
                labels->shape[0] > (1 << 15) || labels->shape[1] > (1 << 15) ||
                (labels->type != "U8" && labels->type != "U16"))
                throw std::invalid_argument("latest/labels");
            l.height = static_cast<int>(labels->shape[0]);
            l.width = static_cast<int>(labels->shape[1]);
            l.label_bytes = labels->type == "U8" ? 1 : 2;
            l.labels.assign(labels->data, labels->data + labels->bytes);
            if (read.find("latest/confidence"))
                l.confidence = read.values<float>("latest/confidence", "F32",
                                                  labels->bytes / static_cast<std::size_t>(l.label_bytes));
            l.classes = class_list("latest/classes", l.names);
            l.logits = read.tensor("latest/logits", OV2VSS_FLOAT32,
                                   {static_cast<std::int64_t>(l.classes.size()), grid_height, grid_width});
            next.latest = std::move(l);
        }
        std::vector<std::int64_t> active;
        std::vector<float> nearest;
        std::int64_t age = 0;
        if (pruner_ && same && read.find("pruner/active")) {
            const std::size_t count = read.find("pruner/active")->bytes / 8;
            active = read.values<std::int64_t>("pruner/active", "I64", count);
            nearest = read.values<float>("pruner/nearest", "F32", words_->rows());
            age = read.values<std::int64_t>("pruner/age", "I64", 1)[0];
            for (const std::int64_t row : active)
                if (row < 0 || row >= static_cast<std::int64_t>(words_->rows()))
                    throw std::invalid_argument("pruner/active");
        }
        std::vector<std::uint8_t> picture;
        std::vector<int> past_classes;
        Tensor past;
        Motion motion;
        if (propagator_ && read.find("past/picture")) {
            picture = read.values<std::uint8_t>(
                "past/picture", "U8", 3 * static_cast<std::size_t>(m.height) * static_cast<std::size_t>(m.width));
            if (read.find("past/past") && same) {
                past_classes = class_list("past/classes", words_->names);
                past = read.tensor("past/past", OV2VSS_FLOAT32,
                                   {static_cast<std::int64_t>(past_classes.size()), grid_height, grid_width});
                const auto cells = static_cast<std::size_t>(grid_height * grid_width);
                motion = {static_cast<int>(grid_height), static_cast<int>(grid_width),
                          read.values<float>("past/flow", "F32", 2 * cells),
                          read.values<float>("past/trust", "F32", cells)};
            }
        }
        // All of it is good.
        reset();
        state_ = std::move(next);
        if (pruner_ && !active.empty()) {
            pruner_->load(std::move(nearest), active, age);
            choose(active);
        }
        if (propagator_) {
            propagator_->picture_ = std::move(picture);
            propagator_->past_ = std::move(past);
            propagator_->motion_ = std::move(motion);
            past_classes_ = std::move(past_classes);
        }
    } catch (const std::invalid_argument& error) {
        throw state_error(std::string("these are not the bytes of a saved stream (") + error.what() + ")",
                          "give the bytes that ov2vss_stream_save gave");
    } catch (const std::out_of_range&) {
        throw state_error("these are not the bytes of a saved stream", "give the bytes that ov2vss_stream_save gave");
    }
}

}  // namespace ov2vss
