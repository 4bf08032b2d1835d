"""Every option that there is, and upstream's that have no meaning here."""

from __future__ import annotations

from dualcodec_jax.train.options.kinds import (
    FLAG,
    INTEGER,
    INTEGERS,
    NUMBER,
    ONE_INTEGER,
    PAIR,
    PAIRS,
    TEXT,
    TEXTS,
    Kind,
    one_of,
    optional,
    several,
)

GROUPS = ("data", "machine", "model", "semantic", "trainer")
MISSING = "???"
"""Value of an option that has to be given on the command line, in Hydra's notation."""

_MEL_SCALES = {
    "window_lengths": INTEGERS,
    "n_mels": INTEGERS,
    "lowest": NUMBER,
    "distance": one_of("absolute", "squared"),
}
_SCHEDULE = {
    "warmup_steps": INTEGER,
    "total_steps": INTEGER,
    "min_lr": optional(NUMBER),
    "constant": FLAG,
}
SECTIONS: dict[str, dict[str, Kind]] = {
    "model": {"name": TEXT, "SAMPLE_RATE": INTEGER},
    "model.model": {
        "sample_rate": INTEGER,
        "encoder_dim": INTEGER,
        "encoder_rates": INTEGERS,
        "decoder_dim": INTEGER,
        "decoder_rates": INTEGERS,
        "n_codebooks": INTEGER,
        "codebook_size": INTEGER,
        "codebook_dim": INTEGER,
        "quantizer_dropout": NUMBER,
        "semantic_codebook_size": INTEGER,
        "semantic_codebook_dim": INTEGER,
        "semantic_dim": INTEGER,
        "semantic_downsample_factor": INTEGER,
        "convnext_dim": INTEGER,
        "convnext_layers": INTEGER,
        "convnext_hidden_dim": INTEGER,
        "is_causal": FLAG,
        "decode_semantic_for_codec": FLAG,
        "encoding": one_of("dual", "dac", "dac_distilled"),
    },
    "model.discriminator": {
        "sample_rate": INTEGER,
        "periods": INTEGERS,
        "period_channels": INTEGERS,
        "fft_sizes": INTEGERS,
        "bands": PAIRS,
        "spectral_channels": INTEGER,
    },
    "model.semantic": {
        "kind": one_of("w2v_bert", "whisper"),
        "num_mels": INTEGER,
        "max_frames": INTEGER,
        "overlap_frames": INTEGER,
        "input_dim": INTEGER,
        "hidden_size": INTEGER,
        "num_layers": INTEGER,
        "num_heads": INTEGER,
        "intermediate_size": INTEGER,
        "conv_kernel_size": INTEGER,
        "left_max_position": INTEGER,
        "right_max_position": INTEGER,
        "layer_norm_eps": NUMBER,
    },
    "machine": {
        "w2v_path": optional(TEXT),
        "ckpt_root_path": optional(TEXT),
        "log_dir": TEXT,
        "init_model_path": optional(TEXT),
        "distributed": optional(FLAG),
    },
    "machine.mesh": {"data": INTEGER, "fsdp": INTEGER, "tensor": INTEGER},
    "data": {
        "kind": one_of("folder", "tar", "tfds", "huggingface"),
        "locations": TEXTS,
        "split": TEXT,
        "subset": optional(TEXT),
        "index_folder": optional(TEXT),
        "features": one_of("step", "cache"),
    },
    "data.segment_speech": {
        "segment_length": INTEGER,
        "crop": one_of("random", "start"),
        "crop_multiple": INTEGER,
    },
    "data.resample": {"resample_rate": INTEGER},
    "data.filter": {
        "min_seconds": NUMBER,
        "max_seconds": optional(NUMBER),
        "min_sample_rate": INTEGER,
        "min_quality": optional(NUMBER),
        "languages": TEXTS,
    },
    "data.shuffle": {"enabled": FLAG, "shuffle_size": INTEGER, "seed": INTEGER},
    "data.dataloader": {"num_workers": INTEGER, "prefetch": INTEGER},
    "data.broken": {"max_count": optional(INTEGER), "max_fraction": optional(NUMBER)},
    "data.evaluation": {
        "kind": one_of("folder", "tar", "tfds", "huggingface"),
        "locations": optional(TEXTS),
        "split": optional(TEXT),
        "segment_length": INTEGER,
    },
    "trainer": {"sample_rate": INTEGER, "exp_name": TEXT, "batch_size": INTEGER},
    "trainer.args": {
        "log_level": one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "seed": INTEGER,
        "resume": FLAG,
        "reset_steps": FLAG,
        "resume_type": one_of("resume", "finetune"),
        "resume_from_ckpt_path": optional(TEXT),
        "model_1_name": optional(TEXT),
        "model_2_name": optional(TEXT),
    },
    "trainer.cfg": {
        "log_dir": TEXT,
        "bypass_rate": NUMBER,
        "semantic_vq": FLAG,
        "lambda_distill_loss": NUMBER,
        "lambda_semantic_commitment_loss": NUMBER,
        "lambda_semantic_codebook_loss": NUMBER,
        "add_semantic_spec_loss": FLAG,
    },
    "trainer.cfg.losses": {
        "mel": NUMBER,
        "adversarial": NUMBER,
        "feature_matching": NUMBER,
        "commitment": NUMBER,
        "codebook": NUMBER,
        "semantic_mel": NUMBER,
        "pitch": NUMBER,
        "gan": one_of("least_squares", "hinge"),
        "crop_tail": FLAG,
    },
    "trainer.cfg.losses.mel_scales": _MEL_SCALES,
    "trainer.cfg.losses.semantic_mel_scales": _MEL_SCALES,
    "trainer.cfg.semantic_model": {"mean_var_path": optional(TEXT)},
    "trainer.cfg.semantic_model.semantic_model": {"pretrained_model_name_or_path": optional(TEXT)},
    "trainer.cfg.train.codebooks": {"rate": NUMBER, "restart": NUMBER},
    "trainer.cfg.train": {
        "max_steps": INTEGER,
        "max_epoch": optional(INTEGER),
        "gradient_accumulation_step": INTEGER,
        "precision": one_of("float32", "bfloat16"),
        "disable_mixed_precision": FLAG,
        "keep_codes": FLAG,
        "checkpoint_discriminators": FLAG,
        "save_checkpoint_stride": ONE_INTEGER,
        "keep_last": ONE_INTEGER,
        "keep_every": optional(INTEGER),
        "log_every": INTEGER,
        "tracker": optional(
            several(
                one_of("tensorboard", "wandb"),
                "tensorboard, wandb, a list of them,",
                or_one=True,
            )
        ),
        "wandb_project": TEXT,
        "run_eval": FLAG,
        "eval_every": INTEGER,
        "eval_clips": INTEGER,
        "eval_saved_clips": INTEGER,
        "max_bad_steps": INTEGER,
        "debug_nans": FLAG,
        "max_grad_norm": NUMBER,
    },
    "trainer.cfg.train.optimizer": {
        "lr": NUMBER,
        "betas": PAIR,
        "eps": NUMBER,
        "weight_decay": NUMBER,
    },
    "trainer.cfg.train.adamw": {"lr": NUMBER},
    "trainer.cfg.train.scheduler": _SCHEDULE,
    "trainer.cfg.train.discriminator_scheduler": _SCHEDULE,
}
OPTIONS: dict[str, Kind] = {
    f"{section}.{name}": kind for section, names in SECTIONS.items() for name, kind in names.items()
}
"""Every option there is."""

_FILES = "this trainer makes its own from the configuration; leave it out"
_TEXT_TO_SPEECH = "text is not used to train the codec; leave it out"
_BATCHES = "batches have a fixed number of clips; use trainer.batch_size"
REPLACED = {
    "hydra": "Hydra's own settings have no effect; the run's folder is "
    "machine.log_dir/trainer.exp_name",
    "model.model.latent_dim": "it is encoder_dim · 2^(number of encoder_rates)",
    "model.model.distill": "use model.model.encoding=dac_distilled",
    "model.model.distill_projection_out_dim": "use model.model.convnext_dim",
    "model.model.convnext": "a distilled DAC always has ConvNeXt blocks; leave it out",
    "model.discriminator.rates": "upstream's multi-scale discriminator, which it does not use "
    "either, is not implemented",
    "trainer.max_tokens": _BATCHES,
    "trainer.num_epochs": "use trainer.cfg.train.max_epoch or max_steps",
    "trainer.trainer": "there is one trainer; leave it out",
    "trainer.args.exp_name": "use trainer.exp_name",
    "trainer.cfg.model": _FILES,
    "trainer.cfg.discriminator_model": _FILES,
    "trainer.cfg.dataloader": _FILES,
    "trainer.cfg.skip_semantic_normalize": "features are always normalised; give statistics of "
    "mean 0 and variance 1 to trainer.cfg.semantic_model.mean_var_path to leave them as they are",
    "trainer.cfg.semantic_model.repcodec_model": "RepCodec is not implemented",
    "trainer.cfg.semantic_model.repcodec_path": "RepCodec is not implemented",
    "trainer.cfg.train.find_unused_parameters": "JAX knows which parameters are used; leave it out",
    "trainer.cfg.train.dataloader": "use data.dataloader.num_workers",
    "trainer.cfg.train.use_dynamic_batchsize": _BATCHES,
    "trainer.cfg.train.max_sentences": _BATCHES,
    "trainer.cfg.train.exponentiallr": "the schedule is trainer.cfg.train.scheduler, in upstream "
    "too",
    "data.batch": _BATCHES,
    "data.dataset": "use data.locations; of Emilia's German shards alone, data.filter.languages="
    "[de]",
    "data.datalist": _FILES,
    "data.datalist_tmp": _FILES,
    "data.data_pipeline": _FILES,
    "data.gluster_opener": "clips are always shared out among processes; leave it out",
    "data.gluster_filter": "use data.filter.min_seconds and data.filter.max_seconds",
    "data.gluster_padding": _TEXT_TO_SPEECH,
    "data.get_tokenizer": _TEXT_TO_SPEECH,
    "data.tokenize": _TEXT_TO_SPEECH,
    "data.normalize": _TEXT_TO_SPEECH,
    "data.sort": "clips have one length; leave it out",
    "data.w2v_feat_extractor": "use machine.w2v_path",
    "data.w2v_feature": "use data.features",
    "data.dataloader.batch_size": "use trainer.batch_size",
    "data.dataloader.dataset": _FILES,
    "data.dataloader.prefetch_factor": "use data.dataloader.prefetch, in clips",
    "data.dataloader.pin_memory": "there is nothing to pin; leave it out",
    "data.dataloader.persistent_workers": "workers always stay; leave it out",
}
"""Upstream's options, and those below them, that have no meaning here: what to do instead."""

FIXED = {
    "trainer.cfg.train.disable_mixed_precision": (
        True,
        "use trainer.cfg.train.precision=bfloat16 for mixed precision",
    ),
    "trainer.args.reset_steps": (
        True,
        "finetuning starts at step 0; trainer.args.resume_type=resume keeps the step",
    ),
}
"""Upstream's options that are accepted with the value that is the case anyway."""
