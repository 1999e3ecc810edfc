# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Turn a distillation checkpoint into one that stock mmpretrain or mmdet loads."""

import argparse
import os.path as osp
import sys

import torch
from mmengine.config import Config

from mmfakd.compat import load_checkpoint_file
from mmfakd.utils.export_student import export_student


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='distillation checkpoint')
    parser.add_argument('output', help='file to write, for example student.pth')
    parser.add_argument(
        '--config-out', help="also write the stock student's config to this .py file"
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite files that exist'
    )
    return parser.parse_args()


def main() -> None:
    """Export one checkpoint."""
    args = parse_args()
    for path in filter(None, (args.output, args.config_out)):
        if osp.exists(path) and not args.force:
            sys.exit(f'{path} exists; choose another name, or give --force.')
    try:
        student = export_student(load_checkpoint_file(args.checkpoint))
    except ValueError as error:
        sys.exit(f'{args.checkpoint}: {error}')
    torch.save(student, args.output)
    count = sum(tensor.numel() for tensor in student['state_dict'].values())
    print(f'{args.output}: {len(student["state_dict"])} tensors, {count:,} values.')
    if args.config_out:
        Config.fromstring(student['meta']['cfg'], '.py').dump(args.config_out)
        print(f'{args.config_out}: its config.')


if __name__ == '__main__':
    main()
