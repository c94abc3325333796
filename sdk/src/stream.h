// The state of one video and the rule by which it moves from frame to frame; the Python runtime's Stream says it in
// words.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine.h"
#include "picture.h"
#include "propagation.h"
#include "pruner.h"
#include "random.h"
#include "vocabulary.h"

namespace ov2vss {

// A frame's context, and its time in seconds or NaN.
struct Seen {
    Tensors context;
    double time = std::numeric_limits<double>::quiet_NaN();
};

// What a stream said about the last frame that the network saw.
struct Latest {
    std::int64_t index = 0;
    double time = 0;
    int height = 0, width = 0, label_bytes = 1;
    std::vector<std::uint8_t> labels;  // [height, width] of label_bytes
    std::vector<float> confidence;     // empty where it was not wanted
    Tensor logits;
    std::vector<int> classes;
    std::vector<std::string> names;
};

// All that the next frames depend on.
struct StreamState {
    explicit StreamState(std::uint64_t seed) : random(seed) {}

    std::int64_t index = 0, computed = 0;
    std::deque<std::pair<std::int64_t, Tensors>> ring;
    std::optional<Seen> first, last, kept;
    std::uint64_t seen = 0;
    Random random;
    std::vector<float> cut_tokens;
    std::optional<Latest> latest;
};

class Stream {
public:
    Stream(std::shared_ptr<Engine> engine, std::shared_ptr<Vocabulary> words, const ov2vss_stream_options& options);

    void set_words(std::shared_ptr<Vocabulary> words);
    void set_first(const Picture& frame, double time);
    void set_last(const Picture& frame, double time);
    void step(const Picture& frame, double time, ov2vss_result& result);
    void hold(double time, ov2vss_result& result);
    void advance(const Picture& frame, double time);
    void reset();
    void restart();
    std::string save() const;
    void load(std::string_view bytes);

private:
    struct Advanced {
        Tensors features, guidance;
        bool cut = false;
    };

    const std::uint8_t* resized(const Picture& frame);
    Tensors context_of(const Tensors& features) const;
    Advanced move_on(const std::uint8_t* small, double time);
    Tensors distant_context(Tensors own, double time);
    const Tensors& reference() const;
    // Rows to decode: their classes and embeddings.
    void choose_candidates(const Tensors& features);
    void choose(const std::vector<std::int64_t>& rows);
    void restart_state();
    bool is_cut(const Tensors& features);
    // Logits of the candidates, with the constant of the words that training saw.
    Tensor decode(const Advanced& advanced);
    void check(const Tensor& logits, const Advanced& advanced) const;
    // Makes labels of logits (null: the past's, moved) into `latest`-like storage, and gives the logits.
    void label(const Tensor* logits, int height, int width, Latest& found);
    template <typename Label>
    void label_as(const Tensor* logits, int height, int width, Latest& found);
    void give(const Latest& found, double time, std::int64_t index, ov2vss_result& result);
    int ring_size() const;

    std::shared_ptr<Engine> engine_;
    std::shared_ptr<Vocabulary> words_;
    ov2vss_stream_options options_;
    int gap_ = 1, threads_ = 1, keyframes_ = 1;
    StreamState state_;
    std::optional<Pruner> pruner_;
    std::optional<Propagator> propagator_;
    std::vector<std::uint8_t> small_;
    const std::vector<float>* embeddings_ = nullptr;
    std::vector<float> chosen_embeddings_, chosen_shift_;
    std::vector<int> classes_, past_classes_, given_classes_;
    std::vector<std::uint8_t> narrow_;
    Latest carried_;
};

}  // namespace ov2vss
