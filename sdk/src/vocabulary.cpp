#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>

#include "error.h"
#include "json.h"
#include "unicode.h"

namespace ov2vss {

namespace {

constexpr std::size_t kLongestEntry = 200, kMostClasses = 65'534, kBatch = 64;
constexpr std::streamoff kLargestFile = 64 << 20;
const char* const kRemedy = "write one class a line, synonyms after commas";

using Raw = std::vector<std::vector<std::u32string>>;

std::vector<std::u32string> cut(std::u32string_view text, std::u32string_view marks) {
    std::vector<std::u32string> parts(1);
    for (const char32_t c : text) {
        if (marks.find(c) != std::u32string_view::npos)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

// Without quotes around it.
std::u32string unquoted(std::u32string_view text) {
    text = stripped(text);
    if (text.size() > 1 && text.front() == text.back() && (text.front() == U'"' || text.front() == U'\''))
        text = stripped(text.substr(1, text.size() - 2));
    return std::u32string(text);
}

std::string joined(const std::vector<std::u32string>& words) {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) text += (i ? ", " : "") + to_utf8(words[i]);
    return text;
}

Entries checked(const Raw& given, const std::string& where) {
    Entries entries;
    std::map<std::u32string, std::size_t> seen;
    for (std::size_t number = 1; number <= given.size(); ++number) {
        if (given[number - 1].empty()) continue;
        const std::string place = where + ", entry " + std::to_string(number);
        std::vector<std::u32string> words;
        for (const std::u32string& word : given[number - 1]) words.push_back(squeezed(composed(word)));
        for (const std::u32string& word : words)
            if (word.empty())
                throw vocabulary_error(place + ": empty name or synonym in '" + joined(words) + "'",
                                       "remove the stray comma");
        std::set<std::u32string> folded;
        for (const std::u32string& word : words) {
            if (word.size() > kLongestEntry)
                throw vocabulary_error(place + ": '" + to_utf8(word.substr(0, 30)) + "'... has " +
                                           std::to_string(word.size()) + " characters",
                                       "keep entries within " + std::to_string(kLongestEntry));
            if (std::any_of(word.begin(), word.end(), is_control_or_private))
                throw vocabulary_error(place + ": '" + to_utf8(word) + "' contains control characters", "remove them");
            const std::u32string plain = case_folded(word);
            if (!folded.insert(plain).second) continue;
            const auto [other, fresh] = seen.emplace(plain, number);
            if (!fresh)
                throw vocabulary_error(
                    place + ": '" + to_utf8(plain) + "' repeats entry " + std::to_string(other->second),
                    "give every class its own words");
        }
        std::vector<std::string> entry;
        for (const std::u32string& word : words) {
            std::string text = to_utf8(word);
            if (std::find(entry.begin(), entry.end(), text) == entry.end()) entry.push_back(std::move(text));
        }
        entries.push_back(std::move(entry));
    }
    if (entries.empty()) throw vocabulary_error(where + ": no class names", "write one class a line");
    if (entries.size() > kMostClasses)
        throw vocabulary_error(where + ": " + std::to_string(entries.size()) + " classes",
                               "use at most " + std::to_string(kMostClasses));
    return entries;
}

std::u32string decoded(std::string_view text, const std::string& where) {
    try {
        return code_points(text);
    } catch (const std::invalid_argument&) {
        throw vocabulary_error(where + " is not UTF-8 text", "save it as UTF-8, one class a line");
    }
}

// A class of a JSON list: a name with synonyms after commas, or a list of them.
std::vector<std::u32string> json_entry(const Json& item, const std::string& where) {
    std::vector<std::u32string> words;
    auto add = [&](const Json& text) {
        if (!text.is(Json::Kind::text))
            throw vocabulary_error(where + " holds something that is no class name", kRemedy);
        for (std::u32string& word : cut(code_points(text.text()), U",")) words.push_back(std::move(word));
    };
    if (item.is(Json::Kind::list)) {
        for (const Json& word : item.list()) add(word);
    } else {
        add(item);
    }
    return words;
}

Raw json_entries(std::string_view text, const std::string& where) {
    Raw given;
    try {
        const Json document = Json::parse(text);
        for (const Json& item : document.list()) given.push_back(json_entry(item, where));
    } catch (const std::invalid_argument& error) {
        throw vocabulary_error(where + " is no JSON list (" + error.what() + ")", kRemedy);
    }
    return given;
}

// Tables, numbered lists and YAML are not guessed at: the Python runtime reads them.
void refuse_tables(std::string_view body, const std::string& path) {
    std::size_t lines = 0, numbered = 0, quoted = 0, items = 0, tabs = 0, marked = 0;
    std::istringstream stream{std::string(body)};
    for (std::string line; std::getline(stream, line);) {
        const std::size_t first = line.find_first_not_of(" \t\r");
        if (first == std::string::npos || line[first] == '#') continue;
        ++lines;
        numbered += line[first] >= '0' && line[first] <= '9';
        quoted += line[first] == '"';
        items += line[first] == '-';
        tabs += line.find('\t', first) != std::string::npos;
        marked += line.find("::") != std::string::npos || line.back() == ':';
    }
    if (lines && ((lines > 1 && numbered >= lines - 1) || quoted == lines || items == lines || tabs == lines || marked))
        throw vocabulary_error(
            "class list " + path + " is a table, a numbered list or YAML, which this library does not read",
            "give one class a line, or JSON (the Python runtime reads tables and YAML)");
}

}  // namespace

Entries parse_words(std::string_view text, const std::string& where) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first != std::string_view::npos && text[first] == '[') return checked(json_entries(text, where), where);
    Raw given;
    for (const std::u32string& part : cut(stripped(decoded(text, where)), U";\n")) {
        const std::u32string word = unquoted(part);
        const std::u32string_view bare = stripped(std::u32string_view(word).substr(0, word.find(U'#')));
        given.push_back(bare.empty() ? std::vector<std::u32string>() : cut(bare, U","));
    }
    return checked(given, where);
}

Entries read_words(const std::string& path) {
    std::ifstream stream(path, std::ios::binary | std::ios::ate);
    if (!stream) throw vocabulary_error("class list " + path + " cannot be read", "check the path");
    if (stream.tellg() > kLargestFile || stream.tellg() < 0)
        throw vocabulary_error("class list " + path + " is no class list by its size", "check the path");
    std::string text(static_cast<std::size_t>(stream.tellg()), '\0');
    stream.seekg(0);
    if (!stream.read(text.data(), static_cast<std::streamsize>(text.size())))
        throw vocabulary_error("class list " + path + " cannot be read", "check the path");
    std::string_view body = text;
    if (body.substr(0, 3) == "\xef\xbb\xbf") body.remove_prefix(3);
    const auto ends = [&](const std::string& suffix) {
        return path.size() > suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
    };
    for (const char* other : {".yaml", ".yml", ".csv", ".tsv", ".pbtxt"})
        if (ends(other))
            throw vocabulary_error("class list " + path + " is in a format that this library does not read",
                                   "give one class a line, or JSON (the Python runtime reads tables and YAML)");
    const std::size_t first = body.find_first_not_of(" \t\r\n");
    if (ends(".json") || (first != std::string_view::npos && body[first] == '[')) {
        return checked(json_entries(body, "class list " + path), path);
    }
    Raw given;
    refuse_tables(body, path);
    for (const std::u32string& line : cut(decoded(body, "class list " + path), U"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
        for (const std::u32string& part : cut(std::u32string_view(line).substr(0, line.find(U'#')), U";")) {
            const std::u32string word = unquoted(part);
            if (word.empty()) continue;
            if (word.find_first_of(U"[]{}<>=|") != std::u32string::npos)
                throw vocabulary_error(path + ": '" + to_utf8(word.substr(0, 60)) + "' is no class name", kRemedy);
            given.push_back(cut(word, U","));
        }
    return checked(given, path);
}

std::vector<float> class_embeddings(Engine& engine, const Entries& entries) {
    const std::vector<std::string>& templates = engine.manifest().templates;
    const auto width = static_cast<std::size_t>(engine.manifest().embed_dim);
    std::vector<std::string> prompts;
    std::vector<std::size_t> lengths;
    for (const auto& entry : entries)
        for (const std::string& word : entry)
            for (std::string prompt : templates) {
                for (std::size_t at = 0; (at = prompt.find("{}", at)) != std::string::npos; at += word.size())
                    prompt.replace(at, 2, word);
                lengths.push_back(code_points(prompt).size());
                prompts.push_back(std::move(prompt));
            }
    // Similar lengths together: less padding, and a batch never depends on how many classes there are.
    std::vector<std::size_t> order(prompts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] < lengths[b]; });
    std::vector<float> vectors(prompts.size() * width);
    for (std::size_t start = 0; start < order.size(); start += kBatch) {
        const std::size_t end = std::min(order.size(), start + kBatch);
        std::vector<std::string> batch;
        for (std::size_t i = start; i < end; ++i) batch.push_back(prompts[order[i]]);
        const std::vector<float> encoded = engine.encode_text(batch);
        for (std::size_t i = start; i < end; ++i)
            std::memcpy(vectors.data() + order[i] * width, encoded.data() + (i - start) * width, width * sizeof(float));
    }
    std::vector<float> found;
    found.reserve(entries.size() * width);
    std::size_t cursor = 0;
    for (const auto& entry : entries) {
        const std::size_t count = entry.size() * templates.size();
        std::vector<double> mean(width, 0.0);
        for (std::size_t row = cursor; row < cursor + count; ++row)
            for (std::size_t i = 0; i < width; ++i) mean[i] += static_cast<double>(vectors[row * width + i]);
        double square = 0;
        for (double& value : mean) {
            value /= static_cast<double>(count);
            square += value * value;
        }
        const double length = std::max(std::sqrt(square), 1e-12);
        for (const double value : mean) found.push_back(static_cast<float>(value / length));
        cursor += count;
    }
    return found;
}

std::shared_ptr<Vocabulary> Vocabulary::make(const std::shared_ptr<Engine>& engine, const Entries& entries,
                                             const ov2vss_vocabulary_options& options) {
    auto made = std::make_shared<Vocabulary>();
    const bool by_best = options.synonyms == OV2VSS_SYNONYMS_MAX ||
                         (options.synonyms == OV2VSS_SYNONYMS_BUNDLE && engine->manifest().synonyms_max);
    Entries rows;
    std::set<std::u32string> known;
    for (std::size_t number = 0; number < entries.size(); ++number) {
        made->names.push_back(entries[number][0]);
        for (const std::string& word : entries[number]) {
            known.insert(case_folded(code_points(word)));
            if (by_best) {
                rows.push_back({word});
                made->class_of.push_back(static_cast<int>(number));
            }
        }
        if (!by_best) {
            rows.push_back(entries[number]);
            made->class_of.push_back(static_cast<int>(number));
        }
    }
    const bool spread = rows.size() != entries.size();
    bool background = false;
    if (options.background && *options.background) {
        background = true;
        std::set<std::string> taken;
        for (const auto& entry : parse_words(options.background, "the background words"))
            for (const std::string& word : entry) {
                if (known.count(case_folded(code_points(word))) || !taken.insert(word).second) continue;
                rows.push_back({word});
                made->class_of.push_back(-1);
            }
    }
    if (!spread && !background) made->embeddings = engine->bundle().cached_embeddings(entries, engine->variant());
    if (made->embeddings.empty()) made->embeddings = class_embeddings(*engine, rows);
    made->width = static_cast<std::size_t>(engine->manifest().embed_dim);
    made->engine = engine;
    made->shift_trained(rows);
    return made;
}

void Vocabulary::shift_trained(const Entries& rows) {
    const Manifest& manifest = engine->manifest();
    if (manifest.class_offset == 0) return;
    bool any = false;
    for (const auto& row : rows) {
        const bool seen = std::any_of(row.begin(), row.end(), [&](const std::string& word) {
            return manifest.trained.count(case_folded(code_points(word))) > 0;
        });
        shift.push_back(seen ? static_cast<float>(manifest.class_offset) : 0.0F);
        any = any || seen;
    }
    if (!any) shift.clear();
}

std::shared_ptr<Vocabulary> Vocabulary::given(const std::shared_ptr<Engine>& engine, Entries names,
                                              const float* embeddings, std::size_t width) {
    if (width != static_cast<std::size_t>(engine->manifest().embed_dim))
        throw vocabulary_error("embeddings of length " + std::to_string(width),
                               "the bundle's have " + std::to_string(engine->manifest().embed_dim));
    auto made = std::make_shared<Vocabulary>();
    for (std::size_t i = 0; i < names.size(); ++i) {
        made->names.push_back(names[i][0]);
        made->class_of.push_back(static_cast<int>(i));
    }
    made->embeddings.assign(embeddings, embeddings + names.size() * width);
    for (const float value : made->embeddings)
        if (!std::isfinite(value)) throw vocabulary_error("embeddings that are not finite", "give unit vectors");
    made->width = width;
    made->engine = engine;
    made->shift_trained(names);
    return made;
}

}  // namespace ov2vss
