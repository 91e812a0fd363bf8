"""Runs in the image `worker-transformers`: writes a random GPT-2 with a token for each byte to /models/tiny."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
backend = Tokenizer(models.BPE(vocab={letter: token for token, letter in enumerate(alphabet)}, merges=[]))
backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
backend.decoder = decoders.ByteLevel()
backend.add_special_tokens(["<end>"])
end = len(alphabet)
sizes = {"vocab_size": end + 1, "n_positions": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4}
GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=end, eos_token_id=end)).save_pretrained("/models/tiny")
PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", bos_token="<end>").save_pretrained("/models/tiny")
