# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Make the virtual environment everything runs in: libraries, ROS 2, messages and this package.

Started by ``make`` through ``tools/setup_env.sh``, which finds a Python for it. Standard library only.

Each step leaves a stamp in ``<venv>/.setup/`` holding a hash of what it was made from; a step whose stamp still fits
is skipped, so a second start costs no pip run. What the machine lacks is said in one line with the command that mends
it (exit status 1); system packages are installed only when this runs as root on Debian or Ubuntu.

A sourced ROS 2 installation is used instead of wheels: the environment then sees the system's packages, and
messages are generated only where that installation has none.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PYTHONS = ((3, 10), (3, 14))  # what the ROS wheels exist for
PYTHON = f'{sys.version_info[0]}.{sys.version_info[1]}'
NEEDED_GB = 10  # 9.5 were measured while wheels and what is unpacked of them are both there; pip's cache comes on top
#: message packages for which there is no wheel; their definitions are in tools/messages
MESSAGES = ('vision_msgs', 'tf2_msgs')

#: shared library -> Debian/Ubuntu package; any one of a tuple will do. OpenCV's wheel and MuJoCo's renderer load them.
GL_LIBRARIES: dict[tuple[str, ...], str] = {
    ('libEGL.so.1',): 'libegl1',
    ('libEGL_mesa.so.0', 'libEGL_nvidia.so.0'): 'libegl-mesa0',
    ('libGL.so.1',): 'libgl1',
    ('libglib-2.0.so.0',): 'libglib2.0-0',
}
#: software rasteriser of Mesa before 24.2 and since
GL_DRIVERS = ('/usr/lib*/*/dri/*swrast*', '/usr/lib*/dri/*swrast*', '/usr/lib*/*/libgallium*', '/usr/lib*/libgallium*')
#: what pip says of each failed connection when there is no network
UNREACHABLE = ('NewConnectionError', 'NameResolutionError', 'name resolution', 'Network is unreachable', 'ProxyError',
               'ConnectTimeout')


class Missing(Exception):
    """Something the machine lacks; the text is one line and ends in the command that mends it."""


def say(text: str) -> None:
    """Report progress."""
    print(f'[setup] {text}', flush=True)


def run(arguments: Sequence[str | Path], environment: dict[str, str] | None = None) -> tuple[bool, str]:
    """Run a command; return whether it succeeded, and all it printed."""
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


def last_line(output: str) -> str:
    """The line of a command's output that most likely names the error."""
    return (output.strip().splitlines() or ['no output'])[-1]


def digest(*parts: str | Path) -> str:
    """Hash texts and the contents of files and folders."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            sha.update(part.encode() + b'\0')
            continue
        for file in sorted(part.rglob('*')) if part.is_dir() else [part]:
            if file.is_file():
                sha.update(file.name.encode() + b'\0' + file.read_bytes() + b'\0')
    return sha.hexdigest()


def privileged() -> bool:
    """Whether system packages may be installed here: root on Debian, Ubuntu or a derivative."""
    return os.geteuid() == 0 and shutil.which('apt-get') is not None


def system_packages(packages: Sequence[str], purpose: str) -> None:
    """Install system packages when root on Debian or Ubuntu, else name the command.

    :param packages: names in Debian and Ubuntu
    :param purpose: what is missing, for the one line
    :raises Missing: when not allowed to install, or when apt-get failed
    """
    names = ' '.join(packages)
    if not privileged():
        elsewhere = '' if shutil.which('apt-get') else ' (Debian and Ubuntu names; take your distribution\'s)'
        raise Missing(f'{purpose}; run: sudo apt-get install -y {names}{elsewhere}')
    say(f'{purpose}; running as root, so installing with apt-get: {names}')
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in (['apt-get', 'update', '-qq'], ['apt-get', 'install', '-y', '-qq', *packages]):
        succeeded, output = run(command, environment)
        if not succeeded:
            failure = f'`{" ".join(command)}` failed ({last_line(output)})'
            raise Missing(f'{purpose}, and {failure}; mend that, then run: apt-get install -y {names}')


def check_python(version: tuple[int, int], *, wheels: bool) -> None:
    """Refuse an interpreter the package or the ROS wheels do not run on.

    :raises Missing: naming the versions that do
    """
    low, high = PYTHONS
    found = '.'.join(map(str, version))
    if version < low:
        raise Missing(f'Python {found} is too old, 3.10 or newer is needed; run: sudo apt-get install -y python3.11 '
                      'python3.11-venv python3.11-dev && PYTHON=python3.11 make setup')
    if wheels and version > high:
        raise Missing(f'there are no ROS 2 wheels for Python {found}; run: PYTHON=python3.13 make setup (or source a '
                      'ROS 2 installation first)')
    if wheels and (sys.platform, platform.machine()) != ('linux', 'x86_64'):
        raise Missing(f'there are no ROS 2 wheels for {sys.platform} {platform.machine()}, only for linux x86_64; run: '
                      'source /opt/ros/<distribution>/setup.bash && make setup')


def check_venv() -> None:
    """Debian and Ubuntu ship Python without ``ensurepip``."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        system_packages([f'python{PYTHON}-venv'], f'{sys.executable} cannot make virtual environments (no ensurepip)')


def check_compiler() -> None:
    """What generating messages needs: a C and C++ compiler and Python's headers."""
    packages = []
    if not (shutil.which(os.environ.get('CXX', 'c++')) and shutil.which(os.environ.get('CC', 'cc'))):
        packages.append('build-essential')
    if not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        packages.append(f'python{PYTHON}-dev')
    if packages:
        what = 'no C++ compiler' if packages[0] == 'build-essential' else 'no Python headers'
        system_packages(packages, f'{what} (messages are generated here and have to be compiled)')


def check_gl() -> None:
    """What OpenCV's wheel and rendering without a screen load from the system."""
    def loads(name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    packages = [package for names, package in GL_LIBRARIES.items() if not any(map(loads, names))]
    if not any(glob.glob(pattern) for pattern in GL_DRIVERS) and not loads('libEGL_nvidia.so.0'):
        packages.append('libgl1-mesa-dri')
    if packages:
        system_packages(packages, 'OpenGL libraries are missing (OpenCV and the simulator\'s renderer load them)')


def check_disk(folder: Path, needed_gb: int = NEEDED_GB) -> None:
    """torch with its CUDA libraries is large; a half-written environment is worse than none."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed_gb:
        raise Missing(f'only {free:.1f} GB are free at {folder}, about {needed_gb} GB are needed; free some, then run: '
                      'make setup')


def sourced_ros() -> str | None:
    """Name of the ROS 2 distribution that is sourced, if any.

    :raises Missing: when this interpreter is not the one it was built for
    """
    distro = os.environ.get('ROS_DISTRO')
    if not distro or os.environ.get('_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
        return None
    if not importable('rclpy', Path(sys.executable)):
        # going on with wheels would mix two ROS 2 in one process: the sourced one is on PYTHONPATH
        raise Missing(f'ROS 2 {distro} is sourced but {sys.executable} cannot import rclpy; run: '
                      'PYTHON=/usr/bin/python3 make setup (or start from a shell without ROS 2 to use wheels)')
    return distro


def importable(module: str, python: Path) -> bool:
    """Whether an interpreter can import a module."""
    return run([python, '-c', f'import {module}'])[0]


def explain_pip(output: str, log: Path) -> str:
    """Turn pip's output into one line that says what to do.

    :param output: all pip printed
    :param log: where it is kept
    """
    if 'No space left' in output:
        return f'the disk is full (log: {log}); free some, then run: make setup'
    if re.search('|'.join(UNREACHABLE), output):
        return (f'pip reaches no package index (log: {log}); connect the network or set PIP_INDEX_URL to a mirror, '
                'then run: make setup')
    errors = [line.removeprefix('ERROR: ') for line in output.splitlines() if line.startswith('ERROR:')]
    error = errors[-1] if errors else last_line(output)
    return f'pip failed: {error} (log: {log}); mend that, then run: make setup'


def explain_cmake(output: str, log: Path) -> str:
    """The same for CMake and the compiler."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if 'error' in line.lower()]
    # CMake says where in one line and what in the next
    error = ' '.join(lines[errors[0]:errors[0] + 2]) if errors else last_line(output)
    return f'messages could not be compiled: {error} (log: {log}); mend that, then run: make setup'


class Environment:
    """One virtual environment and the steps that make it.

    :param folder: where it is or will be
    :param distro: ``jazzy`` or ``kilted`` wheels; ignored with ``sourced``
    :param sourced: name of the sourced ROS 2 installation to use instead of wheels
    """

    def __init__(self, folder: Path, distro: str, sourced: str | None) -> None:
        self.folder = folder
        self.distro = distro
        self.sourced = sourced
        self.python = folder / 'bin' / 'python'
        self.stamps = folder / '.setup'
        self.log = self.stamps / 'log.txt'
        self.base = f'{PYTHON} {platform.machine()} {sourced or distro + " wheels"}'

    def step(self, name: str, inputs: str, text: str, action: Callable[[], None]) -> bool:
        """Run ``action`` unless it already ran with the same inputs; return whether it ran."""
        stamp = self.stamps / name
        if stamp.exists() and stamp.read_text() == inputs:
            return False
        say(text)
        started = time.monotonic()
        stamp.unlink(missing_ok=True)
        action()
        stamp.write_text(inputs)
        say(f'  done in {time.monotonic() - started:.0f} s')
        return True

    def command(self, arguments: Sequence[str | Path], explain: Callable[[str, Path], str],
                environment: dict[str, str] | None = None) -> None:
        """Run a command, keep its output in the log.

        :raises Missing: with ``explain``'s line when it fails
        """
        succeeded, output = run(arguments, environment)
        with self.log.open('a') as log:
            log.write(f'$ {" ".join(map(str, arguments))}\n{output}\n')
        if not succeeded:
            raise Missing(explain(output, self.log))

    def pip(self, *arguments: str) -> None:
        """Run pip in the environment."""
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        options = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off']
        self.command([self.python, '-m', 'pip', 'install', *options, *arguments], explain_pip, environment)

    def create(self) -> None:
        """Make the empty environment."""
        check_venv()
        check_disk(self.folder.parent)
        options = ['--system-site-packages'] if self.sourced else []
        succeeded, output = run([sys.executable, '-m', 'venv', *options, self.folder])
        if not succeeded:
            raise Missing(f'`{sys.executable} -m venv` failed ({last_line(output)}); run: '
                          'sudo apt-get install -y python3-venv')

    def install_libraries(self, requirements: list[Path]) -> None:
        """Install the Python libraries.

        Beside a ROS 2 installation, what the system has stays the system's: a newer NumPy here would break the
        compiled modules there (``cv_bridge``).
        """
        if self.sourced:
            lines = [line for path in requirements for line in path.read_text().splitlines()]
            if importable('cv2', Path(sys.executable)):
                lines = [line for line in lines if not line.startswith('opencv-python')]
            numpy_found, version = run([sys.executable, '-c', 'import numpy; print(numpy.__version__)'])
            if numpy_found:
                lines = [line for line in lines if not line.startswith('numpy')]
                lines.append(f'numpy=={version.strip()}')
            kept = self.stamps / 'requirements.txt'
            kept.write_text('\n'.join(lines) + '\n')
            self.pip('-r', str(kept))
            return
        # two wheels own the module cv2; the project's is the one that can open windows
        if list(self.folder.glob('lib/python3.*/site-packages/opencv_python_headless-*.dist-info')):
            both = ['opencv-python-headless', 'opencv-python']
            self.command([self.python, '-m', 'pip', 'uninstall', '-y', *both], explain_pip)
        self.pip(*(part for path in requirements for part in ('-r', str(path))))

    def missing_messages(self) -> list[str]:
        """Return the message packages that the ROS 2 installation does not bring itself."""
        return [name for name in MESSAGES
                if self.sourced is None or not importable(f'{name}.msg', Path(sys.executable))]

    def generate_messages(self, name: str) -> None:
        """Compile ``tools/messages/NAME`` into the environment, which is an ament prefix."""
        if not self.sourced:
            self.repair_cmake()
        build = self.folder / 'build' / name
        shutil.rmtree(build, ignore_errors=True)
        cmake: list[str | Path] = [REPO / 'tools' / 'with_env.sh', self.folder, 'cmake']
        prefixes = [str(self.folder), *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
        definitions = {
            'BUILD_TESTING': 'OFF',
            'CMAKE_BUILD_TYPE': 'Release',
            'CMAKE_INSTALL_PREFIX': str(self.folder),
            'CMAKE_PREFIX_PATH': ';'.join(filter(None, prefixes)),
            'Python3_EXECUTABLE': str(self.python),
            # Debian's Python would say dist-packages, where a virtual environment does not look
            'PYTHON_INSTALL_DIR': f'lib/python{PYTHON}/site-packages',
        }
        options = [f'-D{key}={value}' for key, value in definitions.items()]
        # Ninja comes with the wheels; a ROS installation brings make
        generator = ['-G', 'Ninja'] if (self.folder / 'bin' / 'ninja').exists() or shutil.which('ninja') else []
        source = REPO / 'tools' / 'messages' / name
        self.command([*cmake, *generator, '-S', source, '-B', build, *options], explain_cmake)
        jobs = str(os.cpu_count() or 1)
        self.command([*cmake, '--build', build, '--target', 'install', '--parallel', jobs], explain_cmake)
        shutil.rmtree(build)
        if self.sourced:
            script = self.folder / 'share' / name / 'local_setup.bash'
            say(f'ROS 2 {self.sourced} has no {name}: for ros2 launch, also `source {script}`')

    def repair_cmake(self) -> None:
        """Replace the wheel builder's Python and NumPy paths in the wheels' CMake files by this interpreter's."""
        _, numpy = run([self.python, '-c', 'import numpy; print(numpy.get_include())'])
        python = r'/opt/python/cp\d+-cp\d+t?'
        for file in (self.folder / 'share').rglob('*.cmake'):
            text = file.read_text()
            mended = re.sub(python + r'/include/python3\.\d+t?', sysconfig.get_path('include'), text)
            mended = re.sub(python + r'/lib/python3\.\d+t?/site-packages/numpy/_?core/include', numpy.strip(), mended)
            if mended != text:
                file.write_text(mended)

    def install_package(self) -> None:
        """Install this package so that its sources stay where they are (``pip install -e``)."""
        self.pip('--no-deps', '--no-build-isolation', '-e', str(REPO))

    def make(self) -> None:
        """Run every step whose inputs changed."""
        requirements = [REPO / 'requirements.txt', REPO / 'requirements-test.txt']
        wheels = REPO / 'tools' / f'ros-{self.distro}.txt'
        check_gl()
        messages = self.missing_messages()
        if any(not (self.stamps / name).exists() for name in messages):
            check_compiler()  # now, not after minutes of downloading
        created = self.stamps / 'python'
        if created.exists() and created.read_text() != self.base:
            raise Missing(f'{self.folder} was made for Python {created.read_text()}, this is {self.base}; run: '
                          f'rm -rf {self.folder} && make setup')
        if not self.python.exists():
            shutil.rmtree(self.stamps, ignore_errors=True)
        self.stamps.mkdir(parents=True, exist_ok=True)
        # `make demo` and `make test` may be started together; held until this process ends
        lock = (self.stamps / 'lock').open('w')
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.step('python', self.base, f'creating {self.folder}', self.create)
        (self.stamps / 'mode').write_text('sourced\n' if self.sourced else 'wheels\n')
        self.step('libraries', digest(*requirements),
                  'installing Python libraries (torch with CUDA is 5 GB: minutes on a first run)',
                  lambda: self.install_libraries(requirements))
        if not self.sourced:
            self.step('ros', digest(wheels), f'installing ROS 2 {self.distro} wheels',
                      lambda: self.pip('-r', str(wheels)))
        for name in messages:
            made_from = digest(REPO / 'tools' / 'messages' / name, self.sourced or (self.stamps / 'ros').read_text())
            self.step(name, made_from, f'generating {name} (up to 30 s of compiling)',
                      partial(self.generate_messages, name))
        names = ('setup.py', 'setup.cfg', 'package.xml', 'pyproject.toml')
        self.step('package', digest(str(REPO), *(REPO / name for name in names)),
                  'installing sim2real_da (editable)', self.install_package)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(description='Make the virtual environment sim2real_da runs in.')
    parser.add_argument('--ros', choices=('jazzy', 'kilted'), default='jazzy', help='wheels, when none is sourced')
    parser.add_argument('--venv', type=Path, required=True, help='the environment\'s folder')
    options = parser.parse_args(arguments)
    try:
        sourced = sourced_ros()
        check_python((sys.version_info[0], sys.version_info[1]), wheels=sourced is None)
        if sourced:
            say(f'using the sourced ROS 2 {sourced}')
        Environment(options.venv.resolve(), options.ros, sourced).make()
    except Missing as missing:
        print(f'[setup] {missing}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
