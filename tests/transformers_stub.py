"""What mmkd calls of transformers, with tiny models of the same names and manners."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

utils = SimpleNamespace(logging=SimpleNamespace(
    get_verbosity=lambda: 30, set_verbosity=lambda level: None, set_verbosity_error=lambda: None))


class Config:
    model_type = None

    def __init__(self, hidden_size=8, patch_size=14, num_register_tokens=0, **others):
        self.hidden_size, self.patch_size = hidden_size, patch_size
        self.num_register_tokens = num_register_tokens


class PreTrainedModel(nn.Module):
    main_input_name = 'pixel_values'

    def save_pretrained(self, folder):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, 'config.json').write_text(json.dumps(
            dict(vars(self.config), model_type=self.config.model_type)))

    @classmethod
    def from_pretrained(cls, name, config, state_dict, output_loading_info,
                        ignore_mismatched_sizes):
        assert name is None and output_loading_info and ignore_mismatched_sizes
        model = cls(config)
        own = model.state_dict()
        wrong = {(key, value.shape, own[key].shape) for key, value in state_dict.items()
                 if key in own and value.shape != own[key].shape}
        names = {one[0] for one in wrong}
        model.load_state_dict({key: value for key, value in state_dict.items()
                               if key in own and key not in names}, strict=False)
        return model, dict(missing_keys=set(own) - set(state_dict), mismatched_keys=wrong)


class Vision(PreTrainedModel):
    """Tokens of patches behind one of the class and registers; a pooler that nobody trains."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.before = nn.Parameter(torch.randn(1, 1 + config.num_register_tokens,
                                               config.hidden_size))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, pixel_values, interpolate_pos_encoding=False):
        if not interpolate_pos_encoding and pixel_values.shape[-2:] != (28, 28):
            raise ValueError('Input image size does not match model (28*28).')
        tokens = self.embed(pixel_values).flatten(2).transpose(1, 2)
        before = self.before.expand(len(tokens), -1, -1)
        return SimpleNamespace(last_hidden_state=torch.cat([before, tokens], 1))


class Dinov2WithRegistersConfig(Config):
    model_type = 'dinov2_with_registers'


class Dinov2WithRegistersModel(Vision):
    config_class = Dinov2WithRegistersConfig


class CLIPVisionConfig(Config):
    model_type = 'clip_vision_model'


class CLIPVisionModel(Vision):
    config_class = CLIPVisionConfig


class BertConfig(Config):
    model_type = 'bert'


class BertModel(Vision):
    config_class, main_input_name = BertConfig, 'input_ids'


MODELS = {model.config_class.model_type: model
          for model in (Dinov2WithRegistersModel, CLIPVisionModel, BertModel)}


class AutoConfig:
    @staticmethod
    def from_pretrained(folder, local_files_only, trust_remote_code):
        assert local_files_only and trust_remote_code is False
        said = json.loads(Path(folder, 'config.json').read_text())
        if said['model_type'] == 'clip':
            return SimpleNamespace(vision_config=CLIPVisionConfig(**said['vision_config']))
        return MODELS[said['model_type']].config_class(**said)


class AutoModel:
    @staticmethod
    def from_config(config, trust_remote_code):
        assert trust_remote_code is False
        return MODELS[config.model_type](config)
