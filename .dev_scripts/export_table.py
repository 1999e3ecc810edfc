# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Export stock models, and write which can be into docs/en/export.md.

    python .dev_scripts/export_table.py [NAME ...]   # runs these, or all
    python .dev_scripts/export_table.py --table      # writes the table from the log

Each model is built from its library's own config at random, saved, and given to
`mmfakd export` as a user would. Results are kept in docs/en/results/logs/export.json.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfakd.export.command import export_checkpoint
from mmfakd.messages import markdown
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.find import config_file

REPOSITORY = Path(__file__).resolve().parents[1]
LOG = REPOSITORY / 'docs/en/results/logs/export.json'
PAGE = REPOSITORY / 'docs/en/export.md'
TABLE = re.compile(r'(<!-- exports -->\n).*?(<!-- end of exports -->)', re.S)
KINDS = ('onnx', 'torchscript')
# Name of a config -> size of the input, where its own takes long.
MODELS = {
    'resnet18_8xb32_in1k': None,
    'mobilenet-v2_8xb32_in1k': None,
    'shufflenet-v2-1x_16xb64_in1k': None,
    'efficientnet-b0_8xb32_in1k': None,
    'convnext-tiny_32xb128_in1k': None,
    'deit-tiny_4xb256_in1k': None,
    'vit-base-p16_32xb128-mae_in1k': None,
    'swin-tiny_16xb64_in1k': None,
    'retinanet_r18_fpn_1x_coco': (256, 320),
    'fcos_r50-caffe_fpn_gn-head_1x_coco': (256, 320),
    'atss_r50_fpn_1x_coco': (256, 320),
    'gfl_r50_fpn_1x_coco': (256, 320),
    'vfnet_r50_fpn_1x_coco': (256, 320),
    'tood_r50_fpn_1x_coco': (256, 320),
    'paa_r50_fpn_1x_coco': (256, 320),
    'centernet_r18_8xb16-crop512-140e_coco': (256, 320),
    'ssd300_coco': (300, 300),
    'yolov3_mobilenetv2_8xb24-320-300e_coco': (320, 320),
    'yolox_tiny_8xb8-300e_coco': (416, 416),
    'rtmdet_tiny_8xb32-300e_coco': (320, 320),
    'faster-rcnn_r50_fpn_1x_coco': (256, 320),
    'detr_r50_8xb2-150e_coco': (256, 320),
    'fcn_r50-d8_4xb2-40k_cityscapes-512x1024': (256, 256),
    'deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024': (256, 256),
    'segformer_mit-b0_8xb1-160k_cityscapes-1024x1024': (256, 256),
}


def let_signals_pass(model: BaseModel, size: tuple[int, int]) -> None:
    """Give a model weights under which its outputs depend on the image.

    As it is initialised, many a network says the same of any image.

    Args:
        model (BaseModel): The model.
        size (tuple[int, int]): Height and width of its input.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
        elif isinstance(module, _BatchNorm):
            # Its statistics become those of the batch.
            module.momentum = 1.0
    images = torch.randn(2, 3, *size)
    model.train()
    with torch.no_grad():
        try:
            model(images, None, mode='tensor')
        except (AssertionError, AttributeError, TypeError):
            # Of two stages, or with queries.
            model.extract_feat(images)
    model.eval()


def try_model(name: str, size: tuple[int, int] | None, folder: str) -> dict[str, str]:
    """Export a model in all formats.

    Args:
        name (str): Name of its config.
        size (tuple[int, int], optional): Height and width of its input.
        folder (str): Where files may be written.

    Returns:
        dict[str, str]: Format -> what came of it; ``input`` is its input.
    """
    cfg = Config.fromfile(config_file(name))
    if cfg.get('data_preprocessor') and not cfg.model.get('data_preprocessor'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
    torch.manual_seed(0)
    model = build_without_weights(cfg.model, cfg.get('default_scope'))
    let_signals_pass(model, size or (224, 224))
    path = f'{folder}/plain.pth'
    meta = dict(cfg=cfg.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    found = dict(model=type(model).__name__)
    for kind in KINDS:
        # From the most that may vary to the least.
        for dynamic in ('auto', 'batch', 'none'):
            try:
                said = export_checkpoint(
                    path,
                    f'{folder}/out',
                    file_format=kind,
                    force=True,
                    input_size=size,
                    dynamic=dynamic,
                )
            except ValueError as error:
                reason = str(error).partition(': ')[2].partition('\n')[0]
                # Without the paths of this machine.
                reason = re.sub(r'(?<![:\w/])/(?:[\w.-]+/)+', '', reason)
                found[kind] = f'no: {reason[:200]}'
                continue
            apart = re.findall(r'PyTorch by (\S+)', said)[0]
            found['input'] = re.findall(r'input: images (.*)', said)[0]
            dead = 'NOTE: the outputs' in said
            found[kind] = f'{apart}, --dynamic {dynamic}{", outputs constant" * dead}'
            break
    return found


def _cell(result: str) -> str:
    """A difference, and what had to be asked for."""
    if result.startswith('no: '):
        return 'no'
    apart, *options = result.split(', ')
    asked = [option for option in options if option != '--dynamic auto']
    return ', '.join([apart, *(f'`{option}`' for option in asked)])


def table(log: dict[str, dict[str, str]]) -> str:
    """Write the table.

    Args:
        log (dict): Name of a config -> what came of it.

    Returns:
        str: Markdown.
    """
    rows = [['config', 'input', *KINDS]]
    for name, found in log.items():
        cells = [_cell(found[kind]) for kind in KINDS]
        rows.append([f'`{name}`', found.get('input', '-'), *cells])
    return '\n'.join(markdown(rows)) + '\n'


def main(arguments: list[str] | None = None) -> None:
    """Run models and write the table.

    Args:
        arguments (list[str], optional): Of the command line.

    Raises:
        SystemExit: If the page has no place for the table.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help='of the table')
    parser.add_argument('--table', action='store_true', help='run nothing')
    options = parser.parse_args(arguments)
    log = json.loads(LOG.read_text()) if LOG.exists() else {}
    for name in [] if options.table else options.names or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            log[name] = try_model(name, MODELS[name], folder)
        print(name, log[name], flush=True)
        log = {name: log[name] for name in MODELS if name in log}
        LOG.write_text(json.dumps(log, indent=1) + '\n')
    text, count = TABLE.subn(rf'\g<1>\n{table(log)}\n\g<2>', PAGE.read_text())
    if not count:
        raise SystemExit(f'{PAGE} has no place for the table: {TABLE.pattern}')
    PAGE.write_text(text)


if __name__ == '__main__':
    main()
