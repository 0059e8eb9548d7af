"""A plain Hugging Face Trainer script, as an example of a command job: nothing in it knows this project.

`python hf_trainer.py --model FOLDER --corpus FILE --output CHECKPOINT_DIR --steps N [--resume CHECKPOINT]`
"""

import argparse
from pathlib import Path


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--resume", default="", help="a checkpoint folder, empty for none, or 'auto' for the newest")
    return parser.parse_args()


def main(options):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    # weights stored as fp16 are trained in fp32: Adam's 1e-8 is zero in fp16, and the loss explodes
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    ids = tokenizer(Path(options.corpus).read_text("utf-8")[:60_000])["input_ids"]
    blocks = [{"input_ids": ids[at : at + 64], "labels": ids[at : at + 64]} for at in range(0, len(ids) - 64, 64)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=options.output,
            max_steps=options.steps,
            per_device_train_batch_size=4,
            save_steps=options.save_every,
            save_total_limit=3,
            logging_steps=1,
            learning_rate=1e-3,
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=0,
        ),
        train_dataset=blocks,
    )
    resume = options.resume
    if resume == "auto":  # what most notebooks do: take the newest folder, whatever is in it
        resume = any(Path(options.output).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(Path(options.output) / "model"))


if __name__ == "__main__":
    main(parse())
