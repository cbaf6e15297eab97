"""What this folder takes of the rest of mmkd, or has by itself where it was copied alone."""

__all__ = ['MMKD_VERSION', 'UserError']

try:
    from mmkd import __version__ as MMKD_VERSION
    from mmkd.errors import UserError
except ModuleNotFoundError as error:
    if error.name != 'mmkd':
        raise
    MMKD_VERSION = ''

    class UserError(ValueError):
        """Something outside the program is wrong; one sentence says what, where, and what to do."""
