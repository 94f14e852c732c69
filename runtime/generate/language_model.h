// A TokenModel of exported files: encoder, first decoder, decoder with past, as far as there are.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/generate/decoder.h"
#include "runtime/generate/model_folder.h"
#include "runtime/generate/token_model.h"

namespace weft::runtime {

// Prompts of one length are prefilled together and without padding, so that each is computed as it is alone; then their
// caches are put into one batch with padding on the left, if the model's logits do not depend on that (tried out once).
// Encoders see rows of one length at a time too; decoders see sources padded on the right if they take a mask for them.
class LanguageModel final : public TokenModel {
 public:
  LanguageModel(const GenerationModel& model, std::shared_ptr<ThreadPool> pool);

  void set_profile(Profile* profile);
  void set_cache_budget(const std::shared_ptr<CacheBudget>& budget);
  CacheUsage cache_usage() const;
  // Has it a source beside the prompt?
  bool has_source() const { return source_in_decoder_ || encoder_ != nullptr; }
  // Does its encoder take something else than tokens?
  bool takes_features() const { return encoder_ != nullptr; }
  // See positions.h; of all decoders.
  std::optional<std::int64_t> position_limit() const { return position_limit_; }
  // An output of the last start() of one source, of the decoder or else the encoder; null if there is none of the name.
  const Tensor* output(std::string_view name) const;

  Logits start(std::span<const Source> sources) override;
  Logits step(std::span<const std::int64_t> parents, std::span<const std::int64_t> tokens) override;
  Logits extend(std::span<const std::int64_t> tokens) override;
  void truncate(std::int64_t length) override;
  bool together(const Source& a, const Source& b) override;

 private:
  using Rows = std::vector<std::int64_t>;

  TensorMap encode(std::span<const Source> sources);
  Tensor encode_rows(std::span<const Source> sources, const Rows& rows, Tensor& mask);
  // Adds to fixed_ what the decoders take of the source alone.
  void compute_of_source(Session* session);
  // Of any decoder, or of what it takes of its source.
  bool takes(std::string_view input) const;
  bool masks_source() const;
  bool ignores_padding(const Source& source);
  bool try_padding(const Source& source);
  Caches merge(const std::vector<std::pair<Rows, Caches>>& groups, std::int64_t rows) const;
  Logits recompute();

  std::unique_ptr<Session> encoder_;
  std::unique_ptr<Decoder> first_;  // of a prompt; null: next_ does it
  std::unique_ptr<Decoder> next_;   // with caches; null: everything is computed again at each step
  std::unique_ptr<Session> first_source_, next_source_;
  std::vector<Tensor> encoded_;     // outputs of the encoder's last run
  bool source_in_decoder_ = false;  // one file that takes input_ids and decoder_input_ids
  std::optional<std::int64_t> position_limit_;
  std::optional<bool> ignores_padding_;
  // Without caches:
  TensorMap fixed_;
  std::vector<std::vector<std::int64_t>> sequences_;
};

}  // namespace weft::runtime
