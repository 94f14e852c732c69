// What the inputs and outputs of an exported language model are: told from their types and shapes, and from words in
// their names where these leave it open.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft::runtime {

// What the caller settles: a name in the file -> what it is called here ("ids" -> "input_ids").
using IoNames = std::map<std::string, std::string, std::less<>>;

// What a file is, as far as its interface says.
struct FileIo {
  bool tokens = false;  // integers [B, S] come in
  bool caches = false;  // keys and values come in and go out longer
  bool states = false;  // beside tokens, an encoder's result [B, T, H]
  bool branch = false;  // a flag chooses between running with and without caches
  std::string text;     // "ids i64[B, S] -> logits f32[B, S, 64]", for errors
};
FileIo describe_io(const Graph& graph);

// Gives the interface of a decoder the names that generation goes by:
//   input_ids, or decoder_input_ids beside another's input_ids   integers [B, S]
//   attention_mask [B, P + S], position_ids [B, S], cache_position [S], encoder_attention_mask [B, T]
//   encoder_hidden_states [B, T, H], use_cache_branch
//   past_key_values.* and the present.* that follows from it; with ".encoder." what is of the encoder
//   logits [B, S, V], or [B, 1, V] of the last position; of [B, V] an axis is made; as f32
// Names that are these already stay. Error kUnsupported when something could be either or nothing could be it: what was
// found, and which name settles it.
void name_decoder_io(Graph& graph, const IoNames& given);

// The same for an encoder: input_ids and attention_mask; features keep their names.
void name_encoder_io(Graph& graph, const IoNames& given);

}  // namespace weft::runtime
