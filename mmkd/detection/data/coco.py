"""MMDetection's COCO data set, that says in one sentence what is wrong with its file."""

from typing import Any

from mmdet.datasets import CocoDataset as MMDetectionCocoDataset

from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['CocoDataset']

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError,
           OverflowError, RecursionError)
"""What MMDetection and pycocotools raise for a file that is no JSON, or not COCO's."""


@DATASETS.register_module()
class CocoDataset(MMDetectionCocoDataset):
    """MMDetection's ``CocoDataset``; it takes the same arguments.

    Raises:
        UserError: ``ann_file`` cannot be read, is no JSON, has an entry that is not COCO's, has no
            images, or none of the classes.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file of annotations."""
        if 'img' not in self.data_prefix:
            raise UserError(f"the data set of '{self.ann_file}' does not say where its images lie: "
                            "give it data_prefix=dict(img='FOLDER/')")
        try:
            found = super().load_data_list()
        except OSError as error:
            raise UserError(f"the annotations '{self.ann_file}' cannot be read "
                            f"({error.strerror or error}): correct the config's ann_file or "
                            'data_root') from error
        except DAMAGED as error:
            raise UserError(f"the annotations '{self.ann_file}' are no COCO JSON, or are damaged "
                            f'({type(error).__name__}: {str(error)[:200]}): copy or export the '
                            'file again') from error
        if not found:
            raise UserError(f"the annotations '{self.ann_file}' list no images: name another "
                            'file, or export it again')
        if not self.cat_ids and not self.test_mode:
            raise UserError(f"the annotations '{self.ann_file}' have none of the classes "
                            f"{', '.join(self.metainfo['classes'][:20])}: give the names of its "
                            'categories by --classes, or in metainfo of the config')
        return found
