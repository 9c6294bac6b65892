"""Write a tiny Llama with random weights as a tar archive to standard output.

Runs inside the vLLM image, where torch, tokenizers and transformers are. The result answers like a real
model in every respect but sense: greedy decoding gives the same printable text each time and hardly ever
ends before `max_tokens`, so tests can count tokens.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tokenizers import (  # type: ignore[import-not-found]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # type: ignore[import-not-found]
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SEED = 20
VOCABULARY = 512
CONTEXT = 1024
PAD, BEGIN, END, TURN_END = "<pad>", "<s>", "</s>", "<|end|>"
SPECIAL = [PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>", TURN_END]
TEMPLATE = (
    "{%- for message in messages -%}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}" + TURN_END + "\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>\n{%- endif -%}"
)
SENTENCES = [
    "a yard is a place where models are built, kept and sent to work",
    "every host has its engines and every engine has its port",
    "say hello to the tiny model and count the tokens it answers with",
]
# Logits this far apart make greedy decoding independent of rounding.
SHARPEN = 20.0


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on a few sentences: it can encode any text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
    )


def model(words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return two random layers whose output head can only choose printable tokens."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(BEGIN),
        eos_token_id=SPECIAL.index(END),
        tie_word_embeddings=False,
        dtype="float32",
    )
    llama = LlamaForCausalLM(config).to(torch.float32)
    readable = torch.tensor([[float(is_readable(words, token))] for token in range(VOCABULARY)])
    with torch.no_grad():
        llama.lm_head.weight.mul_(SHARPEN * readable)
    return llama


def is_readable(words: PreTrainedTokenizerFast, token: int) -> bool:
    """Whether the token's text is plain ASCII that can be seen."""
    if token < len(SPECIAL) or token >= len(words):
        return False
    text: str = words.decode([token])
    return text.isascii() and text.isprintable() and not text.isspace() and text != ""


def main() -> None:
    """Write the archive; its entries are readable by everybody."""
    archive = sys.stdout.buffer
    with tempfile.TemporaryDirectory() as name:
        words = tokenizer()
        model(words).save_pretrained(name)
        words.save_pretrained(name)
        with tarfile.open(fileobj=archive, mode="w|") as tar:
            for file in sorted(Path(name).iterdir()):
                entry = tarfile.TarInfo(file.name)
                content = file.read_bytes()
                # safetensors writes 0600, which a container's other user cannot read
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
