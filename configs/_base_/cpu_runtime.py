# What every detector's run on two CPU cores shares: what makes it faster there.
_base_ = './default_runtime.py'

amp = 'auto'
channels_last = True
