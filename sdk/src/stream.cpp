#include "stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "error.h"
#include "kernels.h"

namespace ov2vss {

namespace {

// 1 - correlation of two frames' tokens of one level [M, C] over positions and channels, 0 for equal frames, 0 to 2.
// The mean over positions is taken off first: two places under the same sky are alike on average.
double token_distance(const float* one, const float* other, std::size_t positions, std::size_t channels) {
    double both = 0, first = 0, second = 0;
    for (std::size_t c = 0; c < channels; ++c) {
        double mean_one = 0, mean_other = 0;
        for (std::size_t m = 0; m < positions; ++m) {
            mean_one += static_cast<double>(one[m * channels + c]);
            mean_other += static_cast<double>(other[m * channels + c]);
        }
        mean_one /= static_cast<double>(positions);
        mean_other /= static_cast<double>(positions);
        for (std::size_t m = 0; m < positions; ++m) {
            const double a = static_cast<double>(one[m * channels + c]) - mean_one;
            const double b = static_cast<double>(other[m * channels + c]) - mean_other;
            both += a * b;
            first += a * a;
            second += b * b;
        }
    }
    const double scale = std::sqrt(first * second);
    return scale > 1e-12 ? 1.0 - both / scale : 0.0;
}

bool finite(const Tensor& tensor) {
    if (tensor.type != OV2VSS_FLOAT32) return true;
    const float* values = tensor.floats();
    return std::all_of(values, values + tensor.count(), [](float value) { return std::isfinite(value); });
}

// Rows of `row` bytes into memory that may have space between them.
void copy_rows(const void* from, void* to, std::ptrdiff_t stride, std::size_t row, int rows) {
    const auto* source = static_cast<const char*>(from);
    auto* target = static_cast<char*>(to);
    if (!stride) stride = static_cast<std::ptrdiff_t>(row);
    for (int y = 0; y < rows; ++y) std::memcpy(target + y * stride, source + static_cast<std::size_t>(y) * row, row);
}

}  // namespace

Stream::Stream(std::shared_ptr<Engine> engine, std::shared_ptr<Vocabulary> words, const ov2vss_stream_options& options)
    : engine_(std::move(engine)), options_(options), state_(options.seed) {
    const Manifest& manifest = engine_->manifest();
    auto refuse = [](const std::string& what, const char* remedy) { return argument_error(what, remedy); };
    if (options.gap < 0) throw refuse("gap " + std::to_string(options.gap), "use a gap of at least 1 frame, or 0");
    if (options.distant < OV2VSS_DISTANT_FIRST || options.distant > OV2VSS_DISTANT_RESERVOIR)
        throw refuse("distant " + std::to_string(options.distant), "use one of ov2vss_distant");
    if (!(options.unknown_below >= 0 && options.unknown_below <= 1))
        throw refuse("unknown_below=" + std::to_string(options.unknown_below), "give a probability, 0 to 1");
    if (options.top_classes < 0)
        throw refuse("top_classes=" + std::to_string(options.top_classes), "give a number, or 0 for all");
    if (!(options.drop_absent >= 0 && options.drop_absent < 1))
        throw refuse("drop_absent=" + std::to_string(options.drop_absent), "give a share, 0 to below 1");
    if (options.keyframes < OV2VSS_KEYFRAMES_AUTO || options.keyframes > 1000)
        throw refuse("keyframes=" + std::to_string(options.keyframes), "give 1 to 1000, or OV2VSS_KEYFRAMES_AUTO");
    if (options.threads < 0)
        throw refuse("threads=" + std::to_string(options.threads), "give a number of threads, or 0");
    if (options.reset_on_cut && !engine_->cut())
        throw refuse("this model has no feature that shows shot changes", "leave reset_on_cut out");
    const bool chooses = options.top_classes > 0 || options.drop_absent > 0;
    if (chooses && !engine_->dense())
        throw refuse("this model has no feature that shows candidates", "leave top_classes out");
    keyframes_ = options.keyframes ? options.keyframes : 1;
    gap_ = options.gap ? options.gap : manifest.gap;
    threads_ = options.threads ? options.threads : engine_->threads();
    if (chooses) pruner_.emplace(options.top_classes, static_cast<double>(options.drop_absent), manifest.temperature);
    if (options.smooth || keyframes_ != 1) {
        if (!options.motion) throw refuse("smooth and keyframes need a motion function", "give one, or leave them out");
        if (options.smooth && manifest.blends)
            throw refuse("the graphs of " + manifest.name + " blend frames already", "leave smooth out");
        propagator_.emplace(manifest.smoothing, options.smooth != 0, options.motion, options.motion_user,
                            engine_->wiring().grid_height, engine_->wiring().grid_width);
    }
    set_words(std::move(words));
    reset();
}

void Stream::set_words(std::shared_ptr<Vocabulary> words) {
    if (words->engine != engine_)
        throw argument_error("the vocabulary was made with another engine", "make it with the stream's");
    words_ = std::move(words);
    embeddings_ = &words_->embeddings;
    classes_ = words_->class_of;
    past_classes_.clear();
    if (propagator_) propagator_->drop();
    if (pruner_) pruner_->restart();
}

void Stream::set_first(const Picture& frame, double time) {
    if (engine_->wiring().distant.empty()) return;
    state_.first = Seen{context_of(engine_->backbone(resized(frame))), time};
}

void Stream::set_last(const Picture& frame, double time) {
    if (engine_->wiring().distant.empty()) return;
    state_.last = Seen{context_of(engine_->backbone(resized(frame))), time};
}

void Stream::reset() {
    state_ = StreamState(options_.seed);
    restart();
}

void Stream::restart() {
    restart_state();
    if (propagator_) propagator_->forget();
}

void Stream::restart_state() {
    state_.ring.clear();
    state_.first.reset();
    state_.kept.reset();
    state_.seen = 0;
    if (pruner_) pruner_->restart();
}

int Stream::ring_size() const {
    if (keyframes_ == OV2VSS_KEYFRAMES_AUTO) return gap_;
    return std::max(1, static_cast<int>(std::nearbyint(static_cast<double>(gap_) / keyframes_)));
}

const std::uint8_t* Stream::resized(const Picture& frame) {
    const int height = engine_->manifest().height, width = engine_->manifest().width;
    small_.resize(3 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
    resize(frame, small_.data(), height, width);
    return small_.data();
}

Tensors Stream::context_of(const Tensors& features) const {
    Tensors found;
    for (const std::string& name : engine_->wiring().distant) found[name] = features.at(name);
    return found;
}

bool Stream::is_cut(const Tensors& features) {
    if (!options_.reset_on_cut) return false;
    const CutInfo& cut = *engine_->manifest().cut;
    const Tensor& tokens = features.at(cut.output);
    const auto positions = static_cast<std::size_t>(tokens.shape[1]),
               channels = static_cast<std::size_t>(tokens.shape[2]);
    const std::size_t level = static_cast<std::size_t>(cut.level) * positions * channels;
    const bool found =
        !state_.cut_tokens.empty() &&
        token_distance(state_.cut_tokens.data() + level, tokens.floats() + level, positions, channels) > cut.threshold;
    state_.cut_tokens.assign(tokens.floats(), tokens.floats() + tokens.count());
    return found;
}

Tensors Stream::distant_context(Tensors own, double time) {
    StreamState& s = state_;
    if (!s.first) s.first = Seen{own, time};
    ++s.seen;
    if (options_.distant == OV2VSS_DISTANT_RESERVOIR) {
        // Each of the frames so far is kept with equal probability.
        if (s.random.below(s.seen) == 0 || !s.kept) s.kept = Seen{std::move(own), time};
        return s.kept->context;
    }
    if (!s.last || options_.distant == OV2VSS_DISTANT_FIRST) return s.first->context;
    if (std::isnan(time) || std::isnan(s.first->time) || std::isnan(s.last->time)) return s.last->context;
    return (s.last->time - time > time - s.first->time ? s.last : s.first)->context;
}

const Tensors& Stream::reference() const {
    if (keyframes_ != OV2VSS_KEYFRAMES_AUTO) return state_.ring.front().second;
    // Where the network sees frames at any distance: the one that is nearest to `gap` frames back.
    const std::int64_t wanted = state_.index - gap_;
    return std::min_element(state_.ring.begin(), state_.ring.end(),
                            [&](const auto& one, const auto& other) {
                                return std::abs(wanted - one.first) < std::abs(wanted - other.first);
                            })
        ->second;
}

Stream::Advanced Stream::move_on(const std::uint8_t* small, double time) {
    Advanced found;
    found.features = engine_->backbone(small);
    found.cut = is_cut(found.features);
    if (found.cut) {
        restart_state();
        if (propagator_) propagator_->drop();
    }
    const Tensors context = distant_context(context_of(found.features), time);
    const auto size = static_cast<std::size_t>(ring_size());
    if (state_.ring.empty()) {
        Tensors state = engine_->initial_state();
        const int warmup = engine_->manifest().state ? engine_->manifest().state->warmup : 0;
        for (int run = 0; run < warmup; ++run) state = engine_->step(found.features, context, state).second;
        for (std::size_t k = 0; k < size; ++k) state_.ring.emplace_back(state_.index - gap_, state);
    }
    auto [guidance, next] = engine_->step(found.features, context, reference());
    state_.ring.pop_front();
    state_.ring.emplace_back(state_.index, std::move(next));
    found.guidance = std::move(guidance);
    ++state_.index;
    ++state_.computed;
    return found;
}

void Stream::choose(const std::vector<std::int64_t>& rows) {
    const std::size_t width = words_->width;
    classes_.clear();
    chosen_embeddings_.clear();
    chosen_shift_.clear();
    for (const std::int64_t row : rows) {
        const auto at = static_cast<std::size_t>(row);
        classes_.push_back(words_->class_of[at]);
        if (!words_->shift.empty()) chosen_shift_.push_back(words_->shift[at]);
        chosen_embeddings_.insert(chosen_embeddings_.end(),
                                  words_->embeddings.begin() + static_cast<std::ptrdiff_t>(at * width),
                                  words_->embeddings.begin() + static_cast<std::ptrdiff_t>((at + 1) * width));
    }
    embeddings_ = &chosen_embeddings_;
}

void Stream::choose_candidates(const Tensors& features) {
    const bool few = options_.top_classes >= static_cast<int>(words_->rows()) && !(options_.drop_absent > 0);
    if (!pruner_ || few) {
        embeddings_ = &words_->embeddings;
        classes_ = words_->class_of;
        return;
    }
    if (pruner_->due()) {
        const Tensor& dense = features.at(engine_->dense()->name);
        pruner_->look(dense.floats(), static_cast<std::size_t>(dense.shape[1] * dense.shape[2]), words_->embeddings,
                      words_->rows());
        choose(pruner_->active());
    } else {
        pruner_->active();
    }
}

Tensor Stream::decode(const Advanced& advanced) {
    Tensor logits = engine_->decode(advanced.features, advanced.guidance, *embeddings_, classes_.size());
    if (words_->shift.empty()) return logits;
    const std::vector<float>& shift = embeddings_ == &words_->embeddings ? words_->shift : chosen_shift_;
    const std::size_t cells = logits.count() / shift.size();
    float* value = logits.floats();
    for (const float added : shift)
        for (std::size_t i = 0; i < cells; ++i, ++value) *value += added;
    return logits;
}

void Stream::check(const Tensor& logits, const Advanced& advanced) const {
    if (finite(logits)) return;
    std::string graph = "decoder";
    for (const auto& item : advanced.guidance)
        if (!finite(item.second)) graph = "stcf_step";
    for (const auto& item : advanced.features)
        if (!finite(item.second)) graph = "backbone";
    throw engine_error(
        "frame " + std::to_string(state_.index - 1) + ": graph " + graph + " gave numbers that are not finite",
        "use another precision or engine, and check the bundle with ov2vss-export --verify-only");
}

template <typename Label>
void Stream::label_as(const Tensor* logits, int height, int width, Latest& found) {
    const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    narrow_.resize(pixels * sizeof(Label));
    auto* labels = reinterpret_cast<Label*>(narrow_.data());
    const bool wanted = options_.confidence || options_.unknown_below > 0;
    found.confidence.resize(wanted ? pixels : 0);
    float* confidence = wanted ? found.confidence.data() : nullptr;
    if (!propagator_) {
        found.logits = *logits;
        make_labels(logits->floats(), static_cast<int>(logits->shape[0]), engine_->wiring().grid_height,
                    engine_->wiring().grid_width, labels, confidence, height, width, threads_);
    } else if (logits) {
        if (past_classes_ != classes_) propagator_->past_ = Tensor();
        found.logits = propagator_->blend(*logits, labels, confidence, height, width, threads_);
        past_classes_ = classes_;
    } else {
        found.logits = propagator_->carry(labels, confidence, height, width, threads_);
    }
    constexpr Label unknown = std::numeric_limits<Label>::max();
    if (options_.unknown_below > 0)
        for (std::size_t i = 0; i < pixels; ++i)
            if (confidence[i] < options_.unknown_below) labels[i] = unknown;
    // Indices of decoded rows as indices into the names; background is unknown.
    found.label_bytes = words_->label_bytes();
    found.labels.resize(pixels * static_cast<std::size_t>(found.label_bytes));
    const std::vector<int>& classes = found.classes;
    const int nothing = words_->unknown();
    auto convert = [&](auto* to) {
        using Wide = std::remove_pointer_t<decltype(to)>;
        std::vector<Wide> names(static_cast<std::size_t>(unknown) + 1, static_cast<Wide>(nothing));
        for (std::size_t row = 0; row < classes.size(); ++row)
            if (classes[row] >= 0) names[row] = static_cast<Wide>(classes[row]);
        for (std::size_t i = 0; i < pixels; ++i) to[i] = names[labels[i]];
    };
    if (found.label_bytes == 1)
        convert(found.labels.data());
    else
        convert(reinterpret_cast<std::uint16_t*>(found.labels.data()));
}

void Stream::label(const Tensor* logits, int height, int width, Latest& found) {
    found.height = height;
    found.width = width;
    found.names = words_->names;
    if (found.classes.size() <= 254)
        label_as<std::uint8_t>(logits, height, width, found);
    else
        label_as<std::uint16_t>(logits, height, width, found);
}

void Stream::give(const Latest& found, double time, std::int64_t index, ov2vss_result& result) {
    const std::size_t pixels = static_cast<std::size_t>(found.height) * static_cast<std::size_t>(found.width);
    const int bytes = result.label_bytes ? result.label_bytes : found.label_bytes;
    const int unknown = bytes == 1 ? 255 : 65535;
    if (result.labels) {
        if (bytes == found.label_bytes) {
            copy_rows(found.labels.data(), result.labels, result.label_stride,
                      static_cast<std::size_t>(found.width) * found.label_bytes, found.height);
        } else {
            std::vector<std::uint16_t> wide(pixels);
            for (std::size_t i = 0; i < pixels; ++i)
                wide[i] = found.labels[i] == 255 ? static_cast<std::uint16_t>(65535) : found.labels[i];
            copy_rows(wide.data(), result.labels, result.label_stride, 2 * static_cast<std::size_t>(found.width),
                      found.height);
        }
    }
    if (result.confidence)
        copy_rows(found.confidence.data(), result.confidence, result.confidence_stride,
                  sizeof(float) * static_cast<std::size_t>(found.width), found.height);
    given_classes_ = found.classes;
    result.time = time;
    result.index = index;
    result.logits = found.logits.known() ? found.logits.floats() : nullptr;
    result.classes = given_classes_.data();
    result.rows = static_cast<int32_t>(given_classes_.size());
    result.unknown = unknown;
    result.held = result.propagated = result.cut = result.age = 0;
}

namespace {

// What can be said of a result's buffers before any work is done.
void check_result(const ov2vss_result& result, int label_bytes, int width, bool confidence) {
    if (result.label_bytes < 0 || result.label_bytes > 2)
        throw argument_error("label_bytes=" + std::to_string(result.label_bytes), "give 1, 2, or 0");
    if (result.label_bytes == 1 && label_bytes == 2)
        throw argument_error("labels of one byte for more than 254 words", "give a buffer of two bytes a label");
    const int bytes = result.label_bytes ? result.label_bytes : label_bytes;
    if (result.label_stride && std::abs(result.label_stride) < static_cast<std::ptrdiff_t>(width) * bytes)
        throw argument_error("label_stride=" + std::to_string(result.label_stride),
                             "give bytes from a row to the next");
    if (result.confidence && !confidence)
        throw argument_error("confidence is wanted of a stream that makes none",
                             "create it with options.confidence = 1");
    if (result.confidence_stride && std::abs(result.confidence_stride) < static_cast<std::ptrdiff_t>(width) * 4)
        throw argument_error("confidence_stride=" + std::to_string(result.confidence_stride),
                             "give bytes from a row to the next");
}

}  // namespace

void Stream::step(const Picture& frame, double time, ov2vss_result& result) {
    const bool wanted = options_.confidence || options_.unknown_below > 0;
    check_result(result, words_->label_bytes(), frame.width, wanted);
    const std::uint8_t* small = resized(frame);
    if (propagator_) {
        const auto& latest = state_.latest;
        if (!latest || latest->height != frame.height || latest->width != frame.width) propagator_->forget();
        propagator_->look(small, engine_->manifest().height, engine_->manifest().width);
        if (latest && propagator_->past_.known() &&
            !frame_due(keyframes_, state_.index - latest->index, propagator_->motion_)) {
            carried_.classes = past_classes_;
            label(nullptr, frame.height, frame.width, carried_);
            ++state_.index;
            give(carried_, time, state_.index - 1, result);
            result.propagated = 1;
            result.age = static_cast<int32_t>(state_.index - 1 - latest->index);
            return;
        }
    }
    const Advanced advanced = move_on(small, time);
    choose_candidates(advanced.features);
    const Tensor logits = decode(advanced);
    check(logits, advanced);
    if (!state_.latest) state_.latest.emplace();
    Latest& latest = *state_.latest;
    latest.index = state_.index - 1;
    latest.time = time;
    latest.classes = classes_;
    label(&logits, frame.height, frame.width, latest);
    give(latest, time, latest.index, result);
    result.cut = advanced.cut ? 1 : 0;
}

void Stream::hold(double time, ov2vss_result& result) {
    if (!state_.latest) throw argument_error("there are no labels to hold", "call ov2vss_stream_step first");
    const Latest& latest = *state_.latest;
    check_result(result, latest.label_bytes, latest.width, !latest.confidence.empty());
    ++state_.index;
    give(latest, time, state_.index - 1, result);
    result.held = 1;
    result.age = static_cast<int32_t>(state_.index - 1 - latest.index);
}

void Stream::advance(const Picture& frame, double time) {
    choose_candidates(move_on(resized(frame), time).features);
}

}  // namespace ov2vss
