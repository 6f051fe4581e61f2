"""The paper's own figures, by table, to stand beside ours.

Elmana, Elsafty, Ahmed, Rushdi and Morsy, "Deep Learning Segmentation and Classification of Red Blood Cells Using a
Large Multi-Scanner Dataset". In percent unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Row = tuple[float, ...]


def _fixed(rows: dict[str, Row]) -> Mapping[str, Row]:
    return MappingProxyType(rows)


#: The network it recommends, by our name.
NETWORK = "efficientnetb0"
#: Cells and slides of its classification test set (section 4.3).
TEST_CELLS = 17_954
TEST_SLIDES = ("4", "5", "6", "13", "16")
#: Cells of its segmentation test set.
SEGMENTATION_CELLS = 18_690

#: Table 3: segmentation.
TABLE_3 = MappingProxyType(
    {"SN": 98.75, "SP": 99.89, "PPV": 99.27, "F1": 99.01, "ACC": 99.73, "FPR": 0.11, "IoU": 98.03}
)

#: Columns of Table 4.
TABLE_4_COLUMNS = ("SN", "SP", "F1", "PPV", "NPV")
#: Table 4: classes, mean of 5x2 runs, without class weights.
TABLE_4_UNWEIGHTED = _fixed(
    {
        "OTH": (76.12, 99.52, 78.72, 81.57, 99.34),
        "BUR": (95.34, 99.79, 93.77, 92.35, 99.88),
        "FRA": (99.08, 99.92, 98.67, 98.27, 99.96),
        "NOR": (97.78, 99.27, 97.80, 97.81, 99.26),
        "OVA": (97.21, 98.72, 97.08, 96.95, 98.83),
        "TEA": (94.61, 99.56, 94.39, 94.17, 99.60),
        "THR": (94.52, 99.66, 95.67, 96.87, 99.39),
        "TWO": (97.76, 99.25, 97.26, 96.76, 99.49),
        "mean": (94.05, 99.46, 94.17, 94.34, 99.47),
    }
)
#: Table 4: the same with class weights.
TABLE_4_WEIGHTED = _fixed(
    {
        "OTH": (86.20, 98.77, 75.01, 66.67, 99.61),
        "BUR": (96.68, 99.60, 90.98, 85.95, 99.92),
        "FRA": (99.17, 99.93, 98.81, 98.45, 99.96),
        "NOR": (98.20, 98.93, 97.51, 96.84, 99.40),
        "OVA": (94.65, 99.13, 96.22, 97.86, 97.78),
        "TEA": (89.98, 99.73, 92.97, 96.21, 99.25),
        "THR": (94.85, 99.53, 95.30, 95.82, 99.43),
        "TWO": (96.94, 99.31, 96.95, 96.98, 99.30),
        "mean": (94.58, 99.36, 92.97, 91.85, 99.33),
    }
)

#: Columns of Table 5: training and test time in seconds on a T4, parameters in millions, size in MB.
TABLE_5_COLUMNS = ("ACC", "SN", "PPV", "F1", "train s", "test s", "M", "MB")
#: Table 5: networks, by our names.
TABLE_5 = _fixed(
    {
        "mobilenetv3small": (93.4, 88.8, 90.9, 89.7, 1953, 9.5, 0.90, 11.3),
        "mobilenetv3large": (95.5, 92.0, 93.3, 92.4, 2072, 12.5, 2.90, 35.0),
        "resnet50v2": (95.7, 92.0, 92.7, 92.3, 3406, 17.7, 23.50, 270.2),
        "resnet50": (95.9, 92.3, 93.1, 92.6, 3667, 17.7, 23.55, 270.4),
        "densenet121": (96.3, 93.6, 94.1, 93.8, 4563, 21.2, 6.96, 81.5),
        "xception": (96.7, 94.3, 94.6, 94.4, 4046, 18.3, 20.82, 239.1),
        "convnexttiny": (96.7, 94.3, 94.8, 94.5, 5463, 40.4, 27.8, 319.1),
        "efficientnetv2b0": (96.6, 94.1, 94.6, 94.3, 3191, 13.6, 5.80, 68.4),
        "efficientnetb0": (96.5, 94.1, 94.3, 94.2, 3378, 11.0, 4.02, 47.0),
    }
)
#: How the paper writes their names.
NAMES = MappingProxyType(
    {
        "mobilenetv3small": "MobileNetV3Small",
        "mobilenetv3large": "MobileNetV3Large",
        "resnet50v2": "ResNet50V2",
        "resnet50": "ResNet50",
        "densenet121": "DenseNet121",
        "xception": "Xception",
        "convnexttiny": "ConvNeXtTiny",
        "efficientnetv2b0": "EfficientNetV2B0",
        "efficientnetb0": "EfficientNetB0",
    }
)

#: Columns of Tables 7 and 8.
TABLE_7_COLUMNS = ("ACC", "SN", "PPV", "F1")
#: Table 7: ablation, by (segmented, weighted).
TABLE_7: Mapping[tuple[bool, bool], Row] = MappingProxyType(
    {
        (False, False): (95.5, 92.7, 92.4, 92.5),
        (True, False): (96.5, 94.1, 94.3, 94.2),
        (True, True): (95.7, 94.6, 91.8, 93.0),
    }
)
#: Table 8: test slides, by slide: scanner, cells, then the columns of Table 7.
TABLE_8: Mapping[str, tuple[str, int, Row]] = MappingProxyType(
    {
        "4": ("2", 3559, (96.07, 92.44, 91.92, 92.05)),
        "5": ("1", 4150, (97.06, 95.13, 95.54, 95.29)),
        "6": ("1", 4678, (97.32, 95.63, 96.22, 95.89)),
        "13": ("4", 3046, (95.40, 82.35, 83.48, 82.79)),
        "16": ("4", 2521, (95.79, 91.45, 90.06, 90.30)),
    }
)
