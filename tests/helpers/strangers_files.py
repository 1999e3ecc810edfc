# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weight files that run a command when they are read carelessly.

Each maker writes a file whose command creates the file ``marker``.
"""

import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from . import opcodes

WEIGHTS = dict(nn.Linear(2, 2).state_dict())


class Call:
    """Pickles as a call, the way a malicious file does."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):
        """Lets another call take this one's result as its function."""


class State:
    """Runs a command when its state is set."""

    def __setstate__(self, state):
        os.system(state)


class WithState(State):
    """Pickles as :class:`State`."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return State, (), self.command


def _torch_save(make, **options):
    def write(path, marker):
        content = dict(state_dict=WEIGHTS, extra=make(f'touch {marker}', str(marker)))
        torch.save(content, path, **options)

    return write


def _raw_pickle(path, marker):
    path.write_bytes(pickle.dumps(Call(os.system, f'touch {marker}')))


def _protocol_4(path, marker):
    """The name of the function is put together on the unpickler's stack."""
    content = dict(state_dict=WEIGHTS, extra=Call(os.system, f'touch {marker}'))
    torch.save(content, path, pickle_protocol=4)


def _jit_archive(path, marker):
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


def _tar_bytes(marker, first='sys_info'):
    """What torch wrote before version 0.2."""
    evil = pickle.dumps(Call(os.system, f'touch {marker}'))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:', format=tarfile.PAX_FORMAT) as tar:
        for name in (first, 'storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(evil)
            tar.addfile(info, io.BytesIO(evil))
    return buffer.getvalue()


def _legacy_tar(path, marker):
    path.write_bytes(_tar_bytes(marker))


def _disguised_tar(path, marker):
    """A tar archive that begins like the format after it."""
    raw = bytearray(_tar_bytes(marker))
    start = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    raw[: len(start)] = start
    raw[148:156] = b' ' * 8
    raw[148:156] = f'{sum(raw[:512]):06o}\0 '.encode()
    path.write_bytes(bytes(raw))


def _zip_in_zip(path, marker):
    """A lone file in an archive, which torch.hub unpacks."""
    _raw_pickle(inner := path.with_suffix('.inner'), marker)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.write(inner, 'weights.pth')
    inner.unlink()


def _bomb(path, marker):
    """Many zeros in a small file."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('a/data.pkl', bytes(1 << 24))


def _changed_type(path, marker):
    """An array is given a type of 400 bytes a value after it was made of 8."""
    kind = opcodes.dtype('S8', order='|', size=8) + b'q\x07'
    array = opcodes.array([2], b'h\x07', opcodes.data(bytes(16)))
    larger = opcodes.built(b'h\x07', *opcodes.dtype_state('|', 400))
    opcodes.write(path, b'](' + kind + array + larger + b'e')


def _addressed_log(path, marker):
    """A log of what is at an address, which here is that of an array."""
    interface = WEIGHTS['bias'].numpy().__array_interface__
    log = Call(HistoryBuffer, ConfigDict(__array_interface__=interface), [1])
    torch.save(dict(state_dict=WEIGHTS, extra=log), path)


def _safetensors(path, marker):
    """A header with an offset behind the end, and a pickle where tensors should be."""
    header = dict(weight=dict(dtype='F32', shape=[10**9], data_offsets=[0, 4 * 10**9]))
    text = json.dumps(header).encode()
    evil = pickle.dumps(Call(os.system, f'touch {marker}'))
    path.write_bytes(len(text).to_bytes(8, 'little') + text + evil)


# Payloads in pickles and archives: such files are refused.
REFUSED = {
    'pickle that calls os.system': _torch_save(lambda c, m: Call(os.system, c)),
    'pickle that calls exec': _torch_save(lambda c, m: Call(exec, f'open({m!r}, "w")')),
    'pickle that calls eval': _torch_save(lambda c, m: Call(eval, f'open({m!r}, "w")')),
    'chain of getattr': _torch_save(
        lambda c, m: Call(Call(getattr, Call(__import__, 'os'), 'system'), c)
    ),
    'object whose __setstate__ runs': _torch_save(lambda c, m: WithState(c)),
    'object array of numpy': _torch_save(
        lambda c, m: np.array([Call(os.system, c)], dtype=object)
    ),
    'array of pointers': _torch_save(
        lambda c, m: Call(np.ndarray, (1,), 'O', bytearray(8))
    ),
    'type of numpy that is changed later': _changed_type,
    'log that says where in memory it is': _addressed_log,
    'pickle of protocol 4': _protocol_4,
    'pickle in the format before torch 1.6': _torch_save(
        lambda c, m: Call(os.system, c), _use_new_zipfile_serialization=False
    ),
    'pickle without torch.save': _raw_pickle,
    'tar archive of the oldest torch': _legacy_tar,
    'tar archive that begins like a later file': _disguised_tar,
    'TorchScript archive': _jit_archive,
    'archive in an archive': _zip_in_zip,
    'archive that unpacks to a thousand times its size': _bomb,
    'safetensors with a false header': _safetensors,
}
# Those that run their command under a plain torch.load: the test is no empty one.
ARMED = [name for name in REFUSED if name.startswith(('pickle', 'chain', 'obj', 'tar'))]
ARMED.remove('pickle without torch.save')


def _code(marker):
    return f"a = 1\n__import__('os').system('touch {marker}')\n"


def _inherited(marker):
    file = marker.with_name('inherited.py')
    file.write_text(_code(marker))
    return f'_base_ = {str(file)!r}\n'


def _imported(marker):
    marker.with_name('strange_module.py').write_text(_code(marker))
    return "custom_imports = dict(imports=['strange_module'])\n"


def _template(marker):
    """Plain values, until MMEngine has put the variable in place of the braces."""
    evil = f'str(__import__("os").system("touch {marker}"))'
    return f"a = {{1: {{1: '{{{{$PATH:'}}}}, ' + {evil}}}}}#'\n"


def _pickled(marker):
    file = marker.with_name('annotations.pkl')
    file.write_bytes(pickle.dumps(Call(os.system, f'touch {marker}')))
    return (
        f"model = dict(type='mmengine.dataset.BaseDataset', ann_file={str(file)!r})\n"
    )


def _yaml(marker):
    """A registered head reads the file, with a loader that makes any object."""
    file = marker.with_name('answers.yml')
    file.write_text(f'!!python/object/apply:os.system ["touch {marker}"]\n')
    head = dict(
        type='mmpretrain.VQAGenerationHead',
        decoder=dict(type='mmpretrain.LeNet5'),
        inference_method='rank',
        num_ans_candidates=1,
        answer_list_path=str(file),
    )
    return f'model = {head!r}\n'


def _folder_of_modules(marker):
    (folder := marker.with_name('modules')).mkdir(exist_ok=True)
    (folder / 'mc.py').write_text(_code(marker))
    options = dict(server_list_cfg='', client_cfg='', sys_path=str(folder))
    backend = dict(type='mmengine.fileio.MemcachedBackend', **options)
    return f'model = {backend!r}\n'


def _scope(marker):
    """MMEngine imports the registry of what it takes for a library."""
    marker.with_name('strange_scope.py').write_text(_code(marker))
    return "model = dict(type='ResNet', depth=18, _scope_='strange_scope')\n"


def _unspelled(marker):
    """MMEngine imports a module by a name that no `import` could spell."""
    marker.with_name('strange-module.py').write_text(_code(marker))
    return "model = dict(type='strange-module')\n"


def _recorded(marker):
    """A recorder imports the module of what it records, as soon as it is built."""
    marker.with_name('strange_module.py').write_text(_code(marker))
    kind = 'mmrazor.models.task_modules.MethodOutputsRecorder'
    return f"model = dict(type={kind!r}, source='strange_module.Net.forward')\n"


def _evaluated(marker):
    """A transform that is built makes a type of torch of it, by `eval`."""
    kind = 'mmpretrain.datasets.transforms.processing.TorchVisonTransformWrapper'
    evil = f'float, __import__("os").system("touch {marker}")'
    return f'model = dict(type={kind!r}, transform=None, dtype={evil!r})\n'


def _imported_class(marker):
    """A module of MMEngine imports the class, which empties a file."""
    kind = 'mmengine.model.base_module.FileHandler'
    return f"model = dict(type={kind!r}, filename={str(marker)!r}, mode='w')\n"


def _padding(marker):
    """A convolution looks its way of padding up as a registry does a type."""
    marker.with_name('strange_module.py').write_text(_code(marker))
    channels = 'in_channels=1, out_channels=1, kernel_size=1'
    kind = 'mmcv.cnn.bricks.ConvModule'
    return f"model = dict(type={kind!r}, {channels}, padding_mode='strange_module')\n"


def _policy(marker):
    """What wraps parts of a model looks up so which; timm's backbones their norm."""
    marker.with_name('strange_module.py').write_text(_code(marker))
    kind = 'mmengine.model.wrappers.MMFullyShardedDataParallel'
    return (
        f"model = dict(type={kind!r}, module=None, auto_wrap_policy='strange_module')\n"
    )


def _metric(marker):
    """A metric writes where its arguments say, as soon as it is built."""
    kind = 'mmpretrain.evaluation.ShapeBiasMetric'
    return f"model = dict(type={kind!r}, csv_dir={str(marker)!r}, model_name='a')\n"


# Payloads in the text of a config: the weights are loaded, the text is left out.
TEXTS = {
    'text with a call': _code,
    'text with an f-string': lambda marker: (
        f"""a = f'{{__import__("os").system("touch {marker}")}}'\n"""
    ),
    'text with a comprehension': lambda marker: (
        f'a = [open(name, "w") for name in [{str(marker)!r}]]\n'
    ),
    'text with a template': _template,
    'text that inherits a file': _inherited,
    'text that imports a module': _imported,
    'text with type=os.system': lambda marker: (
        f"model = dict(type='os.system', command='touch {marker}')\n"
    ),
    "text with a class of Python's own library": _imported_class,
    'text with a metric as model': _metric,
    'text that names a pickle': _pickled,
    'text that names a YAML file': _yaml,
    'text that names a folder of modules': _folder_of_modules,
    'text with a module as scope': _scope,
    'text with a module as padding': _padding,
    'text with a module as policy': _policy,
    'text with a module that no word names': _unspelled,
    'text with a module to record of': _recorded,
    'text with an expression as a value': _evaluated,
    'text nested too deeply': lambda marker: f'a = {"-" * 50000}1\n',
}


def save_with_text(path, text, state_dict=WEIGHTS, **content):
    """Write a checkpoint with a text in all places where MMEngine executes it."""
    hub = dict(runtime_info=dict(cfg=text), log_scalars={}, resumed_keys={})
    meta = dict(epoch=0, iter=0, cfg=text, config=text)
    checkpoint = dict(meta=meta, message_hub=hub, state_dict=state_dict, **content)
    torch.save(checkpoint, path)
