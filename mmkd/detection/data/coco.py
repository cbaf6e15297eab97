"""MMDetection's COCO data set, that says in one sentence what is wrong with its file."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from mmdet.datasets import CocoDataset as MMDetectionCocoDataset

from mmkd.errors import UserError, did_you_mean
from mmkd.registry import DATASETS

__all__ = ['CocoDataset']

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError,
           OverflowError, RecursionError)
"""What MMDetection and pycocotools raise for a file that is no JSON, or not COCO's."""


class CategoriesByName(MMDetectionCocoDataset.COCOAPI):
    """pycocotools' reader of a file; the numbers of categories come in the order of their names."""

    def __init__(self, annotation_file: str | None = None) -> None:
        with redirect_stdout(StringIO()):  # four lines on its steps
            super().__init__(annotation_file)

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (),
                    cat_ids: Sequence[int] = ()) -> list[int]:
        """Return the numbers of the categories of these names, in their order.

        Raises:
            UserError: some of the names are there and some not, or one is there twice.
        """
        found = super().get_cat_ids(cat_names, sup_names, cat_ids)
        if not cat_names or not found:
            return found
        names = [self.cats[number]['name'] for number in found]
        every = [str(one['name']) for one in self.cats.values()]
        for name in cat_names:
            if names.count(name) > 1:
                raise UserError(f"have {names.count(name)} categories '{name}': give each a name "
                                'of its own, or join them')
            if name not in names:
                raise UserError(f"have no category '{name}', but {', '.join(every[:20])}: correct "
                                '--classes, metainfo of the config, or the file.'
                                f'{did_you_mean(name, every)}')
        return [found[names.index(name)] for name in cat_names]


@DATASETS.register_module()
class CocoDataset(MMDetectionCocoDataset):
    """MMDetection's ``CocoDataset``; it takes the same arguments.

    A label is the place of a category's name in the classes. MMDetection counts the categories of
    the file instead, so that classes in another order, or one that is misspelt, gave objects the
    names of others.

    Raises:
        UserError: ``ann_file`` cannot be read, is no JSON, has an entry that is not COCO's, has no
            images, lacks one of the classes, or has two categories of one name.
    """

    COCOAPI = CategoriesByName

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file of annotations."""
        if 'img' not in self.data_prefix:
            raise UserError(f"the data set of '{self.ann_file}' does not say where its images lie: "
                            "give it data_prefix=dict(img='FOLDER/')")
        try:
            found = super().load_data_list()
        except UserError as error:
            raise UserError(f"the annotations '{self.ann_file}' {error}") from error
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
