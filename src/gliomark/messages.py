"""Catalogue of every message shown to a user: a code and its parameters, rendered in English or Chinese.

``message("sequence-missing", folder=..., missing=..., found=...)`` creates one. A message is a ``str`` (its English
text), so that errors, logs and tables can use it directly; reports, the client and web pages render it in the
language of their reader with ``render_message``. Between processes and over the network it is sent as its code and
parameters (``to_message_record``, ``from_message_record``), so that the receiver can render it in either language.

The texts are format strings: ``{count}``, ``{size:.3g}``. A parameter may itself be a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from math import isfinite
from numbers import Integral, Real
from string import Formatter
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# code: (English, Chinese), in the order of the packages. Each text states what is wrong, where, and what to do.
MESSAGES: Mapping[str, tuple[str, str]] = {
    # ---- reading in a separate process ------------------------------------------------------------------
    "reading-crashed": (
        "{subject}: the reading process ended unexpectedly ({how}) at {file}; the file is damaged or malicious: "
        "export it again, or leave it out.",
        "{subject}：读取进程异常终止（{how}），停在{file}：该文件可能已损坏或为恶意文件；请重新导出，或移除该文件。",
    ),
    "reading-ended-garbled": ("its response could not be interpreted", "返回结果无法识别"),
    "reading-ended-server": (
        "Reading this study has crashed the server {tries} times; it will not be read again.",
        "读取该检查已导致服务器异常终止 {tries} 次，不再读取。",
    ),
    "reading-ended-signal": ("signal {signal}", "信号 {signal}"),
    "reading-ended-status": ("status {status}", "退出码 {status}"),
    "reading-limit-unfit": (
        "{name}={given} is not a positive number: correct or remove this environment variable.",
        "{name}={given} 不是正数：请更正或删除该环境变量。",
    ),
    "reading-memory": (
        "{subject}: reading needs more than {gigabytes:.3g} GB of memory at {file}; the file expands, or claims to "
        "expand, to far more than an image: export it again, or leave it out.",
        "{subject}：读取所需内存超过 {gigabytes:.3g} GB，停在{file}：该文件解压后或声明的数据量远超正常影像；请重新"
        "导出，或移除该文件。",
    ),
    "reading-no-file": ("an unknown file", "未知文件"),
    "reading-slow": (
        "{subject}: reading took too long and was stopped at {file}; the file is damaged or malicious, or the disk "
        "does not respond: export it again, or leave it out.",
        "{subject}：读取时间过长，已停止于{file}：该文件可能已损坏或为恶意文件，或磁盘无响应；请重新导出，或移除该文"
        "件。",
    ),
    # ---- folders and pictures ---------------------------------------------------------------------------
    "grey-no-numbers": (
        "{source} has no grey values: every voxel is blank, transparent or not a number; export it again.",
        "{source} 没有可用的灰度值：全部像素为空、透明或非数值；请重新导出。",
    ),
    "grey-missing": (
        "{name}: {count} voxels have no grey value (not a number, or transparent) and are treated as background.",
        "{name}：{count} 个体素没有灰度值（非数值或透明），按背景处理。",
    ),
    "grey-padding": (
        "{name}: {count} voxels have a padding value far below all others and are treated as background.",
        "{name}：{count} 个体素为远低于其他灰度的填充值，按背景处理。",
    ),
    "grey-constant": (
        "{source} is black or has the same grey value everywhere: export it again.",
        "{source} 全黑或全部为同一灰度值：请重新导出。",
    ),
    "grey-inverted": (
        "{source} is bright in air and dark inside the head, as in an inverted image: export it with the usual grey "
        "scale (air black) and without a white frame.",
        "{source} 的空气区域为亮、头部为暗，可能是灰度反转（负片）的图像：请按常规灰度（空气为黑）重新导出，且不要带"
        "白色边框。",
    ),
    "grey-inverted-slices": (
        "{source} is bright in air on slice {slices}, as in an inverted image, but not on the other slices: export "
        "the series again.",
        "{source} 的层面 {slices} 空气区域为亮，可能是灰度反转（负片）的图像，而其他层面正常：请重新导出该序列。",
    ),
    "picture-folder-empty": (
        "{folder} contains no pictures: add the slices of the sequence, or remove the folder.",
        "{folder} 中没有图片：请放入该序列的各层面图片，或删除该文件夹。",
    ),
    "picture-two-folders": (
        "Both {one} and {other} in {folder} are {what} according to their names, so two patients or a repeated scan "
        "may be mixed: keep one folder of each.",
        "{folder} 中的 {one} 与 {other} 按名称都是{what}，可能混入了两名患者或重复扫描：每种请只保留一个文件夹。",
    ),
    "lesion-mask": ("a lesion mask", "病灶掩膜"),
    "picture-twice": (
        "Slice {slice} occurs twice in {folder}, as {one} and {other}: remove one.",
        "{folder} 中层面 {slice} 出现两次（{one} 和 {other}）：请删除其中一个。",
    ),
    "picture-one-number": (
        "{one} and {other} in {folder} have the same number, so the order of the slices is unknown: remove or "
        "rename one.",
        "{folder} 中 {one} 与 {other} 编号相同，无法确定层面顺序：请删除或重命名其中一个。",
    ),
    "picture-names-differ": (
        "The slice names in {one} ({one_count} slices) and {other} ({other_count} slices) do not match: {names} "
        "only in one of them; give slices at the same position the same name in every folder.",
        "{one}（{one_count} 层）与 {other}（{other_count} 层）的层面名称不一致：{names} 只出现在其中一个文件夹；请让"
        "同一位置的层面在各文件夹中同名。",
    ),
    "and-others": ("{names} and others", "{names} 等"),
    "picture-sizes-differ": (
        "The pictures in {one} are {one_size} pixels and those in {other} are {other_size} pixels: export all "
        "sequences at the same size.",
        "{one} 中的图片为 {one_size} 像素，而 {other} 中为 {other_size} 像素：请以同一尺寸导出所有序列。",
    ),
    "picture-size-differs": (
        "{one} is {one_size} pixels, but {other} in the same folder is {other_size}: export all slices at the same "
        "size.",
        "{one} 为 {one_size} 像素，而同一文件夹的 {other} 为 {other_size} 像素：请以同一尺寸导出所有层面。",
    ),
    "picture-depths-differ": (
        "{one} has {one_depth} grey values but {other} in the same folder has {other_depth}, so they cannot be "
        "compared: export all slices of a sequence with the same bit depth.",
        "{one} 为 {one_depth} 灰度，而同一文件夹的 {other} 为 {other_depth} 灰度，灰度值无法比较：请以同一位深导出该"
        "序列的所有层面。",
    ),
    "bits": ("{count}-bit", "{count} 位"),
    "floating-point": ("floating-point", "浮点"),
    "picture-damaged": (
        "{file} is truncated or damaged, or its format is not supported: copy it again, or save it as PNG.",
        "{file} 不完整、已损坏或格式不受支持：请重新复制，或另存为 PNG。",
    ),
    "picture-several": (
        "{file} contains {count} pictures: save every slice as a separate file.",
        "{file} 含有 {count} 幅图片：请将每个层面单独保存为一个文件。",
    ),
    "picture-turned": (
        "{file} is marked to be displayed rotated or mirrored (EXIF): save it in its upright orientation.",
        "{file} 带有旋转或镜像显示标记（EXIF）：请按正确方向另存。",
    ),
    "picture-coloured": (
        "{file} is a colour picture: export greyscale pictures without coloured annotations.",
        "{file} 是彩色图片：请导出不带彩色标注的灰度图片。",
    ),
    "picture-colour-depth": (
        "{file} stores {bits}-bit grey values as a colour picture or with transparency, of which only 8 bits can be "
        "read: save it as a plain 16-bit greyscale picture.",
        "{file} 以彩色或带透明通道的方式保存了 {bits} 位灰度，只能读取其中 8 位：请另存为普通的 16 位灰度图片。",
    ),
    "picture-half-transparent": (
        "{file} is partly transparent, so its grey values depend on the background: save it without transparency.",
        "{file} 含有半透明像素，灰度取决于背景：请去除透明通道后另存。",
    ),
    "picture-white-unknown": (
        "{file} does not state whether 0 is black or white (TIFF tag PhotometricInterpretation): save it again, for "
        "example as PNG.",
        "{file} 未说明 0 表示黑还是白（TIFF 标签 PhotometricInterpretation）：请另存，例如存为 PNG。",
    ),
    "picture-signed": (
        "{file} stores signed 8-bit values, which viewers display incorrectly: save it as a plain greyscale picture.",
        "{file} 以有符号 8 位数值保存，看图软件会显示错误：请另存为普通灰度图片。",
    ),
    "picture-mask-inverted": (
        "The mask in {folder} covers most of the picture border, as an inverted mask does: mark the lesion in white "
        "on black.",
        "{folder} 中的掩膜覆盖了图片的大部分边缘，可能是反转的掩膜：请用黑底白色表示病灶。",
    ),
    "picture-mask-mixed": (
        "The mask {file} marks the lesion with 1 but other slices mark it with 255: save all masks with the same "
        "value.",
        "掩膜 {file} 用 1 表示病灶，而其他层面用 255：请统一掩膜的取值。",
    ),
    "picture-orientation-assumed": (
        "The pictures are assumed to be axial slices in radiological convention (the patient's right on the left of "
        "the image), numbered from the feet towards the head.",
        "假定图片为轴位层面，按放射学惯例显示（图像左侧为患者右侧），名称由足侧向头侧递增。",
    ),
    "picture-spacing-unusable": (
        "The spacing {spacing} is invalid: give three positive values in mm.",
        "像素间距 {spacing} 无效：请给出三个正数（毫米）。",
    ),
    "picture-spacing-assumed": (
        "The pictures do not state their scale: pixels of {in_plane:.4g} x {in_plane:.4g} mm and a slice spacing of "
        "{step:.3g} mm are assumed, so areas, diameters and volumes are estimates.",
        "图片不含尺寸信息：假定像素为 {in_plane:.4g} × {in_plane:.4g} mm、层间距为 {step:.3g} mm，因此面积、径线和体积为"
        "估计值。",
    ),
    "folder-missing": ("{folder} does not exist: check the path.", "{folder} 不存在：请检查路径。"),
    "folder-is-file": (
        "{folder} is a file: specify the patient's folder.",
        "{folder} 是文件：请指定患者的文件夹。",
    ),
    "folder-unlisted": (
        "{folder} cannot be read ({reason}): check the path and its permissions.",
        "无法读取文件夹 {folder}（{reason}）：请检查路径和权限。",
    ),
    "folder-empty": (
        "{folder} is empty: specify a patient's folder with pictures as <patient>/<sequence>/<slice>.jpg, volumes "
        "with T1, T1C, T2 or FLAIR in their names, or DICOM files.",
        "{folder} 是空文件夹：请指定患者的文件夹，内含按 <患者>/<序列>/<层面>.jpg 存放的图片、文件名含 T1、T1C、T2 "
        "或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-no-images": (
        "{folder} contains no images of a patient: provide pictures as <patient>/<sequence>/<slice>.jpg, volumes "
        "with T1, T1C, T2 or FLAIR in their names, or DICOM files.",
        "{folder} 中没有患者影像：请提供按 <患者>/<序列>/<层面>.jpg 存放的图片、文件名含 T1、T1C、T2 或 FLAIR 的容积"
        "数据，或 DICOM 文件。",
    ),
    "folder-many-patients": (
        "{folder} contains {count} patients: specify one of them, such as {patient}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {patient}。",
    ),
    "pictures-loose": (
        "{folder} contains pictures but no sequence folders: put them in subfolders named T1C, T2 and so on.",
        "{folder} 中有图片但没有序列文件夹：请将图片分别放入 T1C、T2 等子文件夹。",
    ),
    "folder-links": (
        "{folder} contains no images, only links or special files, which are not followed (such as {name}): copy "
        "the image files themselves into it (git-annex and DataLad: unlock them).",
        "{folder} 中没有影像文件，只有链接或特殊文件（如 {name}），程序不会跟随链接：请将影像文件本身复制到该文件夹"
        "（git-annex、DataLad：请先 unlock）。",
    ),
    "links-passed-over": (
        "{count} links or special files in the folder were skipped ({names}): only regular files in the folder are "
        "read.",
        "已跳过文件夹中的 {count} 个链接或特殊文件（{names}）：只读取该文件夹内的普通文件。",
    ),
    "picture-huge": (
        "{file} has more than {most:.0f} million pixels, more than any MR image: export it again at its original "
        "size.",
        "{file} 超过 {most:.0f} 百万像素，大于任何磁共振影像：请以原始尺寸重新导出。",
    ),
    # ---- volumes: NIfTI, MetaImage, NRRD ----------------------------------------------------------------
    "volume-scaling": (
        "{file} has an invalid scaling of its grey values (scl_slope, scl_inter): convert it again.",
        "{file} 中灰度值的缩放系数（scl_slope、scl_inter）不是有效数值：请重新转换。",
    ),
    "volume-unopened": (
        "{file} cannot be opened ({reason}): check its permissions.",
        "{file} 无法打开（{reason}）：请检查访问权限。",
    ),
    "volume-damaged": (
        "{file} is damaged or not an image volume: copy or convert it again.",
        "{file} 已损坏或不是影像容积文件：请重新复制或转换。",
    ),
    "format-unknown": (
        "There is no output format {name}: choose from {formats}.",
        "没有名为 {name} 的输出格式：请从 {formats} 中选择。",
    ),
    "volume-format-unknown": (
        "{file} has no known volume format: convert it to one of {formats}.",
        "{file} 不是已知的容积影像格式：请转换为以下格式之一：{formats}。",
    ),
    "volume-analyze": (
        "{file} is in the old Analyze format, which does not define left and right: convert the original DICOM "
        "images to NIfTI.",
        "{file} 为旧的 Analyze 格式，不含左右方位信息：请由原始 DICOM 影像转换为 NIfTI。",
    ),
    "volume-huge": (
        "{file} has {millions:.0f} million voxels, more than any MR image; the limit is {most:.0f} million: check "
        "the file, or resample it.",
        "{file} 含 {millions:.0f} 百万个体素，超过任何磁共振影像；上限为 {most:.0f} 百万个：请检查该文件，或重采样。",
    ),
    "volume-coloured": (
        "{file} contains colour or complex values: provide a greyscale volume.",
        "{file} 为彩色或复数影像：请提供灰度容积。",
    ),
    "volume-not-3d": (
        "{file} is not a single 3-D volume (its size is {sizes}): provide one volume with all slices; if the fourth "
        "axis contains the sequences (channels), split it into one file per sequence, named T1, T1C, T2, FLAIR.",
        "{file} 不是单个三维容积（大小为 {sizes}）：请提供含全部层面的单个容积；若第四维为各序列（通道），请拆分为每"
        "个序列一个文件，并命名为 T1、T1C、T2、FLAIR。",
    ),
    "volume-unit": (
        "{file} gives its voxel size in an unknown unit ({unit}): convert the original images again, in mm.",
        "{file} 的体素大小所用单位无法识别（{unit}）：请由原始影像以 mm 为单位重新转换。",
    ),
    "volume-steps": (
        "{file} has no valid voxel size ({steps}): convert the original images again.",
        "{file} 没有有效的体素大小（{steps}）：请由原始影像重新转换。",
    ),
    "volume-form-unusable": (
        "{file} has no valid orientation (its sform and qform are zero, not numbers or contradictory): convert the "
        "original images again.",
        "{file} 没有有效的方位信息（sform 与 qform 为零、不是数值或自相矛盾）：请由原始影像重新转换。",
    ),
    "volume-form-steps": (
        "{file} states two different voxel sizes ({one} and {other}, in the unit of the file): convert the original "
        "images again.",
        "{file} 给出两种不同的体素大小（{one} 与 {other}，以文件单位计）：请由原始影像重新转换。",
    ),
    "volume-form-axes": (
        "{file} states two contradictory orientations (sform and qform have different directions, so left and right "
        "are uncertain): convert the original images again.",
        "{file} 给出两种互相矛盾的方位（sform 与 qform 的方向不同，左右无法确定）：请由原始影像重新转换。",
    ),
    "volume-form-place": (
        "{file} states two positions up to {mm:.0f} mm apart (sform and qform); the sform was used.",
        "{file} 给出的两种位置（sform 与 qform）最多相差 {mm:.0f} 毫米；采用 sform。",
    ),
    "volume-unoriented": (
        "{file} does not state its orientation; left and right, front and back are assumed.",
        "{file} 未注明方位：左右和前后方向为假定。",
    ),
    "volume-unoriented-itk": (
        "{file} does not state its orientation in the patient; columns are assumed to run towards the left, rows "
        "towards the back and slices towards the head.",
        "{file} 未注明在患者坐标系中的方位：假定列向患者左侧、行向后、层面向头侧。",
    ),
    "volumes-oriented-and-not": (
        "In {folder}, {file} does not state its orientation but {other} does, so left and right may differ between "
        "them: convert the original images of both again.",
        "{folder} 中 {file} 未注明方位，而 {other} 已注明，两者左右可能不一致：请由原始影像重新转换全部文件。",
    ),
    "volume-sheared": (
        "The voxel grid of {file} is sheared: resample it to an orthogonal grid.",
        "{file} 的体素网格存在剪切（各轴不互相垂直）：请重采样为正交网格。",
    ),
    "volume-header": (
        "The header of {file} is invalid ({stated}): convert the original images again.",
        "{file} 的头信息无效（{stated}）：请由原始影像重新转换。",
    ),
    "volume-header-endless": (
        "The header of {file} has no end within {most} kB, so the file is damaged or not an image volume: convert "
        "the original images again.",
        "{file} 的头信息超过 {most} kB 仍未结束，文件已损坏或不是影像容积：请由原始影像重新转换。",
    ),
    "volume-short": (
        "{file} is damaged: its header states {needed} bytes of image values, but the file contains {held}; copy or "
        "convert it again.",
        "{file} 已损坏：头信息注明影像数据为 {needed} 字节，而文件中只有 {held} 字节；请重新复制或转换。",
    ),
    "volume-data-outside": (
        "{file} refers to a data file outside its own folder, or to a link ({data}): put both files into one "
        "folder, or save the volume as one file.",
        "{file} 指向的数据文件不在其所在文件夹内，或为链接（{data}）：请将两个文件放入同一文件夹，或另存为单个文件。",
    ),
    "volume-data-missing": (
        "{file} refers to the data file {data}, which does not exist: copy both files into one folder.",
        "{file} 指向的数据文件 {data} 不存在：请将两个文件复制到同一文件夹。",
    ),
    "volume-data-list": (
        "{file} consists of several data files ({data}): save the volume as one file.",
        "{file} 由多个数据文件组成（{data}）：请将该容积另存为单个文件。",
    ),
    # ---- names: which image is which --------------------------------------------------------------------
    "volumes-unnamed": (
        "No file name in {folder} contains T1, T1C, T2 or FLAIR (found {names}): rename the volumes.",
        "{folder} 中没有文件名含 T1、T1C、T2 或 FLAIR 的文件（找到 {names}）：请重命名容积文件。",
    ),
    "volumes-channels-unnamed": (
        "The files in {folder} are numbered by channel ({names}), and the sequence of each channel is unknown: put "
        "the dataset.json of the data set in the same folder or the one above, or name the files by T1, T1C, T2 and "
        "FLAIR.",
        "{folder} 中的文件按通道编号（{names}），无法得知各通道对应哪个序列：请将数据集的 dataset.json 放在同一文件"
        "夹或上一级文件夹，或在文件名中写明 T1、T1C、T2、FLAIR。",
    ),
    "volumes-two-of-one": (
        "Both {one} and {other} in {folder} are {sequence} according to their names, so two patients or a repeated "
        "scan may be mixed: keep one file per sequence.",
        "{folder} 中的 {one} 和 {other} 按文件名都是 {sequence}，可能混入了另一名患者或重复扫描：每个序列请只保留一"
        "个文件。",
    ),
    "volumes-two-masks": (
        "Both {one} and {other} in {folder} are lesion masks according to their names, so two patients or a "
        "repeated annotation may be mixed: keep one file.",
        "{folder} 中的 {one} 和 {other} 按文件名都是病灶掩膜，可能混入了另一名患者或重复勾画：请只保留一个文件。",
    ),
    "volumes-two-patients": (
        "{one} and {other} in {folder} belong to two patients according to their names: use a separate folder for "
        "every patient.",
        "{folder} 中的 {one} 和 {other} 按文件名属于两名患者：请为每名患者单独建立文件夹。",
    ),
    "bids-derivatives": (
        "{folder} contains images only in several derivatives folders ({names}): specify one of these folders.",
        "{folder} 本身没有影像，只在多个 derivatives 文件夹中有影像（{names}）：请指定其中一个文件夹。",
    ),
    "bids-no-description": (
        "{folder} is not a BIDS data set, because it has no dataset_description.json: specify the root folder of one.",
        "{folder} 不是 BIDS 数据集（没有 dataset_description.json）：请指定数据集的根文件夹。",
    ),
    "bids-no-subjects": (
        "{folder} has no participant (folder sub-*) with images named as T1w, T2w or FLAIR: check the names of its files.",
        "{folder} 中没有任何受试者（sub-* 文件夹）含有以 T1w、T2w 或 FLAIR 命名的影像：请检查文件名。",
    ),
    "bids-no-participant": (
        "{folder} has no {names} with images; its participants are {known}: correct --participant-label.",
        "{folder} 中没有含影像的 {names}；已有的受试者为 {known}：请更正 --participant-label。",
    ),
    "bids-no-participants-table": (
        "{folder} has no participants.tsv with age and sex: add one, or add --allow-missing-clinical.",
        "{folder} 中没有包含年龄和性别的 participants.tsv：请添加该文件，或加 --allow-missing-clinical。",
    ),
    "bids-no-results": (
        "{folder} has no predictions of these participants: run the level 'participant' first.",
        "{folder} 中没有这些受试者的预测结果：请先运行 participant 级别。",
    ),
    "bids-out-foreign": (
        "{folder} is a data set that gliomark did not write, or the input itself: choose another output folder, such as "
        "{input}/derivatives/gliomark.",
        "{folder} 是其他程序的数据集或输入数据集本身：请另选输出文件夹，例如 {input}/derivatives/gliomark。",
    ),
    "dataset-unreadable": (
        "{file} is not a readable description of a data set: copy it again.",
        "{file} 不是可读取的数据集说明文件：请重新复制。",
    ),
    "dataset-many-cases": (
        "{folder} contains {count} patients: specify one of them, such as {case}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {case}。",
    ),
    "dataset-no-channel": (
        "{file} has no name for channel {channel} (file {volume}): complete its channel_names.",
        "{file} 未给出通道 {channel}（文件 {volume}）的名称：请补全其中的 channel_names。",
    ),
    "dataset-channel-twice": (
        "{file} assigns {sequence} to two channels: correct its channel_names.",
        "{file} 中有两个通道都写为 {sequence}：请更正其中的 channel_names。",
    ),
    "dataset-no-sequence": (
        "None of the channels in {file} is T1, T1C, T2 or FLAIR (found {names}): correct its channel_names.",
        "{file} 中没有通道是 T1、T1C、T2 或 FLAIR（找到 {names}）：请更正其中的 channel_names。",
    ),
    "dataset-labels-unknown": (
        "The labels in {file} do not define which of them is the lesion; the mask was not read.",
        "{file} 的标签未说明哪一个是病灶，未读取掩膜。",
    ),
    "volumes-other-patient": (
        "{file} in {folder} does not belong to patient {patient} according to its name: check whose images these "
        "are, and give the file and the folder matching names.",
        "{folder} 中的 {file} 按文件名不属于患者 {patient}：请核对影像属于哪位患者，并使文件名与文件夹名一致。",
    ),
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    "examination-chosen": (
        "The patient has {count} examinations. Number {number} in chronological order ({name}) was read: the "
        "earliest preoperative one with the required sequences. Not read: {others}.",
        "该患者有 {count} 次检查；读取的是按时间第 {number} 次（{name}），即序列齐全的最早一次术前检查；未读取："
        "{others}。",
    ),
    "examination-number": (
        "The patient has {count} examinations. Number {number} in chronological order was read: the earliest "
        "preoperative one with the required sequences.",
        "该患者有 {count} 次检查；读取的是按时间第 {number} 次，即序列齐全的最早一次术前检查。",
    ),
    "examination-after-surgery": (
        "The examination that was read ({name}) is intraoperative or postoperative according to its description; "
        "the markers are intended for preoperative images.",
        "所读取的检查（{name}）按其描述为术中或术后检查；标志物预测仅适用于术前影像。",
    ),
    "examinations-incomplete": (
        "No single examination in {folder} has the required sequences, only several together ({contents}); "
        "sequences of different examinations are not combined: export one complete examination.",
        "{folder} 中没有一次检查具备所需的全部序列，只有多次检查合起来才齐全（{contents}）；不会混用不同检查的序列："
        "请导出一次完整的检查。",
    ),
    "examinations-undated": (
        "{folder} contains {count} complete examinations and their order is unknown ({names}), so the preoperative "
        "one cannot be identified: keep only the preoperative one.",
        "{folder} 中有 {count} 次序列完整的检查，先后顺序未知（{names}），无法判断哪一次是术前检查：请只保留术前的一"
        "次。",
    ),
    "dicom-damaged": (
        "{file} is damaged or not a DICOM file: copy or export it again.",
        "{file} 已损坏或不是 DICOM 文件：请重新复制或导出。",
    ),
    "dicom-passed-over": (
        "{count} DICOM files could not be read and were skipped ({names}); the series used are complete without "
        "them.",
        "有 {count} 个 DICOM 文件无法读取，已跳过（{names}）；所用序列的层面完整，不受影响。",
    ),
    "dicom-not-needed": (
        "{sequence} was not used because one of its files is damaged ({file}); the other sequences are sufficient.",
        "{sequence} 有文件已损坏（{file}），未使用该序列；其余序列已足够。",
    ),
    "dicom-destroyed": (
        "{count} files among the DICOM images contain no image ({names}); slices at the ends of a series may be "
        "missing: compare the number of slices with the scanner.",
        "DICOM 影像中有 {count} 个文件不含图像（{names}），序列首尾的层面可能缺失：请与原始扫描核对层数。",
    ),
    "dicom-no-mr": (
        "The DICOM files in {folder} contain no MR images (found {found}): export the MRI.",
        "{folder} 的 DICOM 文件中没有 MR 影像（找到 {found}）：请导出 MRI。",
    ),
    "dicom-no-sequence": (
        "None of the MR series in {folder} is T1, T1C, T2 or FLAIR (found {found}): export these sequences.",
        "{folder} 的 MR 序列中没有 T1、T1C、T2 或 FLAIR（找到 {found}）：请导出这些序列。",
    ),
    "dicom-two-ids": (
        "{folder} contains files of two patients (different patient ids in {one} and {other}): use a separate "
        "folder for every patient.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者编号不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-names": (
        "{folder} contains files of two patients (different patient names in {one} and {other}): use a separate "
        "folder for every patient.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者姓名不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-birth-dates": (
        "{folder} contains files of two patients (different birth dates in {one} and {other}): use a separate "
        "folder for every patient.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的出生日期不同）：请为每名患者单独建立文件夹。",
    ),
    "series-candidates": (
        "{count} series were recognised as {sequence}; {name} was read because it {why}.",
        "识别出 {count} 个 {sequence} 序列；读取的是“{name}”，因为它{why}。",
    ),
    "series-original": ("is an original, not a derived image", "是原始图像，而非衍生图像"),
    "series-complete": ("has no missing slices", "没有缺失层面"),
    "series-axial": ("was acquired axially", "为轴位采集"),
    "series-covers-more": ("covers more of the head", "覆盖头部的范围更大"),
    "series-more-slices": ("has more slices", "层面更多"),
    "series-evened-out": (
        "is intensity-normalised (coil sensitivity correction)",
        "经过强度归一化（线圈敏感度校正）",
    ),
    "series-later": ("was acquired later", "采集时间更晚"),
    "series-equal": ("is identical to the other one except for its UID", "除 UID 外与另一序列完全相同"),
    "series-copies": (
        "{sequence}: {count} series have the same pixels as another series under different numbers and were ignored "
        "as copies.",
        "{sequence}：有 {count} 个序列与另一序列像素完全相同、仅编号不同，已作为副本忽略。",
    ),
    "series-unknown": (
        "Series '{name}' was not used: {reason}",
        "未使用序列“{name}”：{reason}",
    ),
    "contrast-doubt": (
        "{count} T1 series have the same protocol but different acquisition times, and none is marked as "
        "contrast-enhanced: check them, and set the column use in the series table.",
        "有 {count} 个 T1 序列参数相同、采集时间不同，均未注明是否为增强扫描：请核对，并在序列表的 use 列中注明。",
    ),
    "series-table-twice": (
        "The edited series table uses two series of one patient as {sequence} ({one} and {other}): keep one.",
        "修改后的序列表将同一患者的两个序列都用作 {sequence}（{one} 和 {other}）：请只保留一个。",
    ),
    "series-table-unknown": (
        "{table}: the series {series} is not in the folder: edit the table that belongs to this folder.",
        "{table}：序列 {series} 不在该文件夹中：请修改与该文件夹对应的序列表。",
    ),
    "series-table-use": (
        "{table}: the column use of series {series} contains '{use}': it must be T1, T1C, T2, FLAIR, auto or blank.",
        "{table}：序列 {series} 的 use 列为“{use}”，只能填写 T1、T1C、T2、FLAIR、auto 或留空。",
    ),
    "patient-id-blank": (
        "the PatientID is blank; enter an id for the series in the column patient_id",
        "患者编号（PatientID）为空；请在 patient_id 列中为该序列填写编号",
    ),
    "patient-id-names": (
        "{count} different names share this PatientID; enter a separate id for each person in the column patient_id",
        "该患者编号（PatientID）下有 {count} 个不同的姓名；请在 patient_id 列中为每名患者填写各自的编号",
    ),
    "patient-id-birth-dates": (
        "{count} different birth dates share this PatientID; enter a separate id for each person in the column "
        "patient_id",
        "该患者编号（PatientID）下有 {count} 个不同的出生日期；请在 patient_id 列中为每名患者填写各自的编号",
    ),
    "archive-unreadable": (
        "{file} cannot be unpacked ({reason}); unpack it manually.",
        "无法解压 {file}（{reason}）；请手动解压。",
    ),
    "archive-huge": (
        "{file} would expand to {gigabytes:.0f} GB; if this is correct, unpack it manually.",
        "{file} 解压后将达 {gigabytes:.0f} GB；若确实如此，请自行解压。",
    ),
    "series-coloured": ("its images are colour images.", "其图像为彩色。"),
    "dicom-frames": (
        "{file} states {count} images of its size, more than the file can contain or any MR series has: copy or "
        "export it again.",
        "{file} 注明含 {count} 帧该尺寸的影像，超出文件所能容纳的数量或任何磁共振序列的帧数：请重新复制或导出。",
    ),
    "recognised-sentence": ("{clause}.", "{clause}。"),
    "recognised-and": ("{clause}; {more}", "{clause}；{more}"),
    "recognised-class": ("SOP class {name} is not an MR image", "SOP 类 {name} 不是磁共振影像"),
    "recognised-modality": ("Modality is {modality}, not MR", "设备类型（Modality）为 {modality}，不是 MR"),
    "recognised-burned-in": (
        "BurnedInAnnotation is YES: a screenshot or a colour map",
        "BurnedInAnnotation 为 YES：是屏幕截图或伪彩图",
    ),
    "recognised-colour": (
        "SamplesPerPixel indicates colour: a screenshot or a colour map",
        "SamplesPerPixel 表明为彩色：是屏幕截图或伪彩图",
    ),
    "recognised-image-type": (
        "ImageType or ComplexImageComponent contains {marks}",
        "ImageType 或 ComplexImageComponent 含 {marks}",
    ),
    "recognised-count": (
        "The series has only {count} image and is not a stack of slices",
        "该序列只有 {count} 幅图像，不是多层序列",
    ),
    "recognised-body-part": ("BodyPartExamined is {part} ({words})", "检查部位（BodyPartExamined）为 {part}（{words}）"),
    "recognised-elsewhere": (
        "{source} names another body part ({words})",
        "{source} 写明是其他部位（{words}）",
    ),
    "recognised-b-value": ("Diffusion b-value is {value:g} s/mm2", "扩散 b 值为 {value:g} s/mm²"),
    "recognised-contrast": ("AcquisitionContrast is {contrast}", "AcquisitionContrast 为 {contrast}"),
    "recognised-time-series": (
        "Every slice position was acquired {count} times: a time series",
        "每个层面位置采集了 {count} 次：是动态（时间）序列",
    ),
    "recognised-angiography": (
        "AngioFlag, TimeOfFlightContrast or PhaseContrast is YES: an angiogram",
        "AngioFlag、TimeOfFlightContrast 或 PhaseContrast 为 YES：是血管成像",
    ),
    "recognised-scout": (
        "The series contains all three planes, with {count} images in this one: a localiser",
        "该序列含三个方位，本方位 {count} 幅：是定位像",
    ),
    "recognised-echoes": (
        "One gradient-echo series with {count} echoes: multi-echo T2* or a field map",
        "该梯度回波序列含 {count} 个回波：是多回波 T2* 或场图",
    ),
    "recognised-echo-planar": (
        "Echo-planar ({timing}), images per slice position: {count}",
        "平面回波成像（{timing}），每个层面位置 {count} 幅",
    ),
    "recognised-words": ("{source} indicates {words}", "{source} 写明 {words}"),
    "recognised-no-words": ("the description names no weighting", "序列描述未写明加权类型"),
    "recognised-sagittal": ("sagittal", "矢状位"),
    "recognised-coronal": ("coronal", "冠状位"),
    "recognised-thick": (
        "{source} is {plane}, with a slice spacing of {step:g} mm: too large to be resliced to axial",
        "{source} 为{plane}，层间距 {step:g} mm：层间距过大，无法重组为轴位",
    ),
    "recognised-thick-unwritten": (
        "{source} is {plane}, with an unknown slice spacing: cannot be resliced to axial",
        "{source} 为{plane}，层间距未知：无法重组为轴位",
    ),
    "recognised-no-timing": ("no timing parameters are stated", "未写明时间参数"),
    "recognised-no-timing-first": ("No timing parameters are stated", "未写明时间参数"),
    "recognised-steady-state": ("steady state", "稳态自由进动序列"),
    "recognised-unknown-kind": ("unknown", "未知类型"),
    "recognised-timing": (
        "{timing}: typical of {kind}, and {said}",
        "{timing}：时间参数符合 {kind}，且{said}",
    ),
    "recognised-timing-silent": (
        "{timing}: the weighting cannot be determined, and {said}",
        "{timing}：无法判断加权类型，且{said}",
    ),
    "recognised-density-but": (
        "{timing}: typical of PD, but {said}: they contradict each other",
        "{timing}：时间参数符合 PD，但 {said}：两者矛盾",
    ),
    "recognised-silent": ("{said}, and no timing parameters are stated", "{said}，且未写明时间参数"),
    "recognised-allowed": ("{said}, which is compatible with {timing}", "{said}，与时间参数（{timing}）相符"),
    "recognised-certain": (
        "{timing}: conclusive for {kind}, although {said}",
        "{timing}：时间参数明确为 {kind}，但 {said}",
    ),
    "recognised-although": (
        "{timing}: typical of {kind}, although {said}",
        "{timing}：时间参数符合 {kind}，但 {said}",
    ),
    "recognised-against": (
        "{said}, but {timing} is typical of {kind}: they contradict each other",
        "{said}，但时间参数（{timing}）符合 {kind}：两者矛盾",
    ),
    "recognised-against-none": (
        "{said}, but {timing} is not typical of it: they contradict each other",
        "{said}，但时间参数（{timing}）与之不符：两者矛盾",
    ),
    "recognised-before-contrast": ("the description indicates a pre-contrast scan", "序列描述写明为增强前"),
    "recognised-before-although": (
        "the description indicates a pre-contrast scan, although ContrastBolusAgent is {agent}",
        "序列描述写明为增强前，但 ContrastBolusAgent 为 {agent}",
    ),
    "recognised-after-contrast": ("the description indicates a post-contrast scan", "序列描述写明为增强后"),
    "recognised-agent": ("ContrastBolusAgent is {agent}", "对比剂（ContrastBolusAgent）为 {agent}"),
    "recognised-no-contrast": ("no contrast agent is mentioned", "未提及对比剂"),
    "recognised-repeats": (
        "acquired {count} times, without a statement of which acquisition is post-contrast",
        "采集了 {count} 次，未注明哪一次为增强后",
    ),
    "recognised-deidentified": (
        "de-identified, without series description or contrast agent: T1 and T1C cannot be distinguished",
        "已去标识化，没有序列描述和对比剂信息：无法区分 T1 与 T1C",
    ),
    "recognised-resliced": (
        "3-D {plane} acquisition with a slice spacing of {step:g} mm, resliced to axial",
        "{plane}三维采集，层间距 {step:g} mm，已重组为轴位",
    ),
    "recognised-resliced-unwritten": (
        "3-D {plane} acquisition, resliced to axial",
        "{plane}三维采集，已重组为轴位",
    ),
    "recognised-derived": (
        "ImageType is DERIVED: used only if no original series is available",
        "ImageType 为 DERIVED：仅在没有原始序列时使用",
    ),
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    "dicom-decoded-huge": (
        "Decoding the pixels of {file} would need more memory than is available: export it again, uncompressed.",
        "解码 {file} 的像素所需内存超出可用内存：请以未压缩格式重新导出。",
    ),
    "dicom-inflated": (
        "{file} is deflated and expands to more than {megabytes:.0f} MB, more than any image: export it again, "
        "uncompressed.",
        "{file} 为压缩（deflate）文件，解压后超过 {megabytes:.0f} MB，远超任何影像：请以未压缩格式重新导出。",
    ),
    "dicom-undecodable": (
        "The pixels of {file} cannot be decoded ({why}): export it again, uncompressed.",
        "无法解码 {file} 的像素（{why}）：请以未压缩格式重新导出。",
    ),
    "cut-short-or-damaged": ("truncated or damaged", "文件不完整或已损坏"),
    "dicom-size": (
        "The pixel data of {file} do not match its header (one image of {size} pixels): export the original series.",
        "{file} 的像素数据与其头信息（单幅 {size} 像素）不符：请导出原始序列。",
    ),
    "dicom-unstated": (
        "{file} lacks the attribute {attribute}, without which its grey values may be misread: export the original "
        "series, or keep this attribute when anonymising.",
        "{file} 缺少属性 {attribute}，灰度可能被误读：请导出原始序列，或在匿名化时保留该属性。",
    ),
    "dicom-inferred": (
        "{kind}: the attribute {attribute} is missing; the usual grey scale is assumed (small values are dark).",
        "{kind}：文件缺少属性 {attribute}，假定为常规灰度（数值小为暗）。",
    ),
    "dicom-photometric": (
        "{file} has PhotometricInterpretation {photometric} with {samples} samples per pixel, which is not a "
        "greyscale MR image: export the original series.",
        "{file} 的 PhotometricInterpretation 为 {photometric}、每像素 {samples} 个采样，不是灰度 MR 图像：请导出原始"
        "序列。",
    ),
    "dicom-coloured": (
        "{file} is a colour image: export the original greyscale series.",
        "{file} 是彩色图像：请导出原始灰度序列。",
    ),
    "dicom-bits": (
        "{file} has contradictory values of BitsStored ({stored}), HighBit ({high}) and BitsAllocated "
        "({allocated}): export the original series.",
        "{file} 的 BitsStored {stored}、HighBit {high} 与 BitsAllocated {allocated} 相互矛盾：请导出原始序列。",
    ),
    "dicom-bits-beyond": (
        "{file} has pixel values beyond its {bits} stored bits (BitsStored, HighBit), so the header or the pixels "
        "are wrong: export the original series.",
        "{file} 的像素值超出其 {bits} 位存储位（BitsStored、HighBit），头信息或像素有误：请导出原始序列。",
    ),
    "dicom-depths-differ": (
        "{one} stores its grey values in {one_bits} bits and {other} of the same series in {other_bits}, so they "
        "cannot be compared: export the original series.",
        "同一序列中 {one} 为 {one_bits} 位而 {other} 为 {other_bits} 位，灰度无法比较：请导出原始序列。",
    ),
    "dicom-lut": (
        "{file} has a lookup table ({attribute}) that cannot be applied: export the original series.",
        "{file} 的查找表（{attribute}）无法应用：请导出原始序列。",
    ),
    "dicom-scaling": (
        "{file} has no valid RescaleSlope and RescaleIntercept but other slices of its series have, so their grey "
        "values cannot be compared: export the original series.",
        "{file} 没有有效的 RescaleSlope 和 RescaleIntercept，而同一序列的其他层面有，灰度无法比较：请导出原始序列。",
    ),
    "dicom-scaling-unusable": (
        "{kind}: RescaleSlope or RescaleIntercept is not a valid number; the stored values were used without "
        "rescaling.",
        "{kind}：RescaleSlope 或 RescaleIntercept 不是有效数值，直接采用存储值。",
    ),
    "dicom-place-missing": (
        "{file} lacks {attribute}, so the slice position is unknown: export the original series.",
        "{file} 缺少 {attribute}，无法确定层面位置：请导出原始序列。",
    ),
    "dicom-place-wrong": (
        "{attribute} in {file} is invalid ({value}), so the slice position is unknown: export the original series.",
        "{file} 中的 {attribute} 无效（{value}），无法确定层面位置：请导出原始序列。",
    ),
    "dicom-single-image": (
        "The series in {folder} has only one image: export the whole series.",
        "{folder} 中的序列只有一幅影像：请导出完整序列。",
    ),
    "dicom-not-uniform": (
        "The slices {one} and {other} in {folder} differ in size, spacing or orientation: export a series with "
        "uniform geometry.",
        "{folder} 中的层面 {one} 与 {other} 在大小、间距或方位上不一致：请导出几何一致的序列。",
    ),
    "dicom-repeats": (
        "{one} and {other} in {folder} have the same slice position but different pixels, so the series contains "
        "repeated acquisitions: export one image per position.",
        "{folder} 中的 {one} 与 {other} 层面位置相同但像素不同，该序列含重复采集：请每个位置只导出一幅影像。",
    ),
    "dicom-one-place": (
        "All images in {folder} have the same slice position: export the whole series.",
        "{folder} 中所有影像的层面位置相同：请导出完整序列。",
    ),
    "dicom-uneven": (
        "The slice spacing in {folder} is {step:.2f} mm but {gap:.2f} mm between {one} and {other}; too many slices "
        "are missing or misplaced for interpolation: export the whole series.",
        "{folder} 的层间距为 {step:.2f} 毫米，而 {one} 与 {other} 之间为 {gap:.2f} 毫米；缺失或错位的层面过多，无法"
        "插值：请导出完整序列。",
    ),
    "dicom-tilted": (
        "The slices in {folder} are shifted sideways from one to the next (tilted stack): export a series without "
        "tilt.",
        "{folder} 中的层面逐层侧移（倾斜）：请导出未倾斜的序列。",
    ),
    "dicom-interpolated": (
        "{kind}: slice {slices} of {count} was missing and was interpolated from its neighbours.",
        "{kind}：缺少第 {slices} 层（共 {count} 层），已由相邻层插值。",
    ),
    "dicom-resampled": (
        "{kind}: the slice spacing was uneven (by up to {mm:.2f} mm); the slices were resampled to a uniform "
        "{step:.2f} mm.",
        "{kind}：层间距不均（最多相差 {mm:.2f} 毫米），已重采样为均匀的 {step:.2f} 毫米。",
    ),
    "dicom-order": (
        "{kind}: the instance numbers and the positions of {count} of {total} slices contradict each other; the "
        "positions were used: check the order of the images.",
        "{kind}：{total} 层中有 {count} 层的实例编号与位置顺序矛盾；以位置为准：请核对影像顺序。",
    ),
    "dicom-copies": ("{kind}: {count} duplicate images were ignored.", "{kind}：已忽略 {count} 幅重复影像。"),
    "dicom-stacks": (
        "{kind}: {count} stacks of slices share one SeriesInstanceUID; one of them was read.",
        "{kind}：同一 SeriesInstanceUID 下有 {count} 组层面，读取了其中一组。",
    ),
    "dicom-duplicate-uid": (
        "{one} and {other} are different images with the same SOP instance UID, so it is unclear which one is "
        "correct: export the examination again, or remove the file that does not belong to it.",
        "{one} 与 {other} 的影像内容不同，但 SOP 实例 UID 相同，无法判断哪一个正确：请重新导出该次检查，或移除其中不"
        "属于该检查的文件。",
    ),
    # ---- lesion masks -----------------------------------------------------------------------------------
    "mask-oedema": (
        "Label {label:g} of the mask {file} was interpreted as oedema and is not part of the lesion.",
        "掩膜 {file} 的标签 {label:g} 按水肿处理，不计入病灶。",
    ),
    "mask-not-numbers": (
        "The mask {file} has {count} voxels that are not finite numbers (NaN or infinite): save it again with the "
        "values 0 and 1.",
        "掩膜 {file} 中有 {count} 个体素不是数值（NaN 或无穷大）：请重新保存为 0 和 1。",
    ),
    "mask-fractions": (
        "The mask {file} contains fractional values ({low:.3g} to {high:.3g}), such as probabilities, instead of "
        "labels: apply a threshold and save it with the values 0 and 1.",
        "掩膜 {file} 的值为小数（{low:.3g} 至 {high:.3g}），如概率，而非标签：请按阈值二值化并保存为 0 和 1。",
    ),
    "mask-labels": (
        "The mask {file} contains values that are not BraTS labels ({labels}): provide a mask of 0 and 1.",
        "掩膜 {file} 含有非 BraTS 标签的值（{labels}）：请提供仅含 0 和 1 的掩膜。",
    ),
    "mask-oriented-and-not": (
        "The mask {mask} cannot be aligned with the images: {file} does not state its orientation but {other} does, "
        "so left and right may differ; save the mask with the geometry of the images.",
        "掩膜 {mask} 无法与影像对齐：{file} 未注明方位，而 {other} 已注明，左右可能不一致；请按影像的几何信息重新保"
        "存掩膜。",
    ),
    "mask-outside": (
        "The mask {file} lies outside all series of the patient ({sequences}): check that it belongs to this "
        "patient and that its geometry was not lost.",
        "掩膜 {file} 位于患者所有序列（{sequences}）之外：请核对是否属于该患者以及几何信息是否丢失。",
    ),
    "mask-elsewhere": (
        "The mask {file} has the size of {sequence} but is up to {mm:.0f} mm away from it, so its geometry was "
        "lost: save it again with the geometry of the images on which it was drawn.",
        "掩膜 {file} 的大小与 {sequence} 相同，但位置相差最多 {mm:.0f} 毫米，几何信息已丢失：请按勾画所用影像的几何"
        "信息重新保存。",
    ),
    "mask-frame": (
        "The mask {file} has a different frame of reference from the patient's images, so its position on them is "
        "unknown: provide the images on which it was drawn.",
        "掩膜 {file} 所用的坐标参考系与患者影像不同，无法确定其位置：请提供勾画所用的影像。",
    ),
    "mask-absent": (
        "The segmentation {file} does not exist: check the path.",
        "掩膜 {file} 不存在：请检查路径。",
    ),
    "mask-kind": (
        "{file} is not a segmentation: provide a volume (NIfTI, NRRD or MHA), a DICOM SEG, an RTSTRUCT, or, for a "
        "patient in pictures, a folder of mask pictures named after the slices.",
        "{file} 不是掩膜文件：请提供容积文件（NIfTI、NRRD 或 MHA）、DICOM SEG、RTSTRUCT；若患者影像为图片，也可提供以层面命名的"
        "掩膜图片文件夹。",
    ),
    "mask-several-labels": (
        "The segmentation {file} has several labels ({labels}): keep only the segment of the lesion.",
        "掩膜文件 {file} 含有多个标签（{labels}）：请只保留病灶的标签。",
    ),
    "mask-files-several": (
        "The {count} files are not one segmentation: provide one file, or only mask pictures named after the slices.",
        "这 {count} 个文件不是同一个掩膜：请只提供一个文件，或只提供以层面命名的掩膜图片。",
    ),
    "mask-picture-name": (
        "{file} is not named after a slice of the patient ({first} to {last}): give it the name of the slice on which it "
        "was drawn.",
        "{file} 未以患者的层面名（{first} 至 {last}）命名：请改为勾画时所用层面的名称。",
    ),
    "mask-picture-grey": (
        "{path} shows grey values as an image does, not a lesion on black: provide pictures with two values.",
        "{path} 含有普通图像的灰度，并非黑底上的病灶：请提供只有两种取值的图片。",
    ),
    "mask-pictures-fewer": (
        "{count} slices have no mask picture; they are taken as free of lesion.",
        "{count} 个层面没有掩膜图片，按无病灶处理。",
    ),
    "mask-pictures-of-volumes": (
        "{path} has mask pictures, which state no position, but the patient's images are volumes: provide a NIfTI volume, "
        "a DICOM SEG or an RTSTRUCT.",
        "{path} 为不含位置信息的掩膜图片，而患者影像为容积数据：请提供 NIfTI 容积、DICOM SEG 或 RTSTRUCT。",
    ),
    "mask-from-file": (
        "The lesion is the segmentation given in {file}, not that of the network.",
        "病灶采用文件 {file} 中的勾画，而非网络的勾画。",
    ),
    "mask-other-patient": (
        "The segmentation {file} belongs to another patient than the images in {folder}: provide the one of this "
        "patient.",
        "掩膜文件 {file} 与 {folder} 中的影像不属于同一患者：请提供该患者的掩膜。",
    ),
    "mask-other-grid": (
        "The segmentation {file} has the grid of none of the patient's series ({sequences}): save it with the geometry "
        "of the images on which it was drawn.",
        "掩膜文件 {file} 与患者各序列（{sequences}）的网格均不一致：请按勾画所用影像的几何信息重新保存。",
    ),
    "mask-files": ("the masks among the images", "影像中的掩膜文件"),
    "mask-damaged": (
        "{file} is a damaged DICOM file among the masks: copy or export it again.",
        "掩膜文件中的 {file} 是已损坏的 DICOM 文件：请重新复制或导出。",
    ),
    "mask-partly-outside": (
        "{percent:.0f}% of a lesion mask lies outside its series.",
        "病灶掩膜有 {percent:.0f}% 位于其序列之外。",
    ),
    "mask-on-no-grid": (
        "A lesion mask matches the grid of no series; it is assumed to be in the coordinates of the reference "
        "series.",
        "病灶掩膜与各序列的网格均不一致；假定其坐标与参考序列相同。",
    ),
    "mask-folder": (
        "{file} is not in a folder named after one of the patient's sequences ({sequences}): move it to "
        "<patient>/<sequence>/.",
        "{file} 不在以患者序列（{sequences}）命名的文件夹中：请移至 <患者>/<序列>/。",
    ),
    "mask-slice-twice": (
        "{file} and {other} annotate the same slice: keep one of them.",
        "{file} 与 {other} 标注同一层面：请只保留一个。",
    ),
    "mask-none": (
        "There is no lesion mask for {folder}: draw one, or exclude the patient.",
        "{folder} 没有病灶掩膜：请勾画，或排除该患者。",
    ),
    "regions-left-out": (
        "{count} of {total} drawn regions were ignored because their names do not denote a lesion.",
        "{total} 个勾画区域中有 {count} 个的名称不表示病灶，已忽略。",
    ),
    "segmentation-damaged": (
        "{file} is a damaged DICOM segmentation, or lacks positions: export it again.",
        "{file} 是已损坏的 DICOM 分割文件，或缺少位置信息：请重新导出。",
    ),
    "segmentation-no-lesion": (
        "No segment of {file} has the name of a lesion ({names}): name the segment of the enhancing and necrotic "
        "tumour 'tumour'.",
        "{file} 中没有名称表示病灶的分割（{names}）：请将强化及坏死肿瘤的分割命名为“肿瘤”。",
    ),
    "segmentation-no-step": (
        "{file} has only one slice and no slice thickness: export it again.",
        "{file} 仅有一个层面且没有层厚信息：请重新导出。",
    ),
    "segmentation-crooked": (
        "The slices of {file} are not aligned with each other: export one regular stack of slices.",
        "{file} 的各层面未对齐：请导出一组规则排列的层面。",
    ),
    "segmentation-empty": ("The segmentation is empty.", "掩膜为空。"),
    "segmentation-uneven": (
        "The frames of the segmentation are unevenly spaced; the mask was resampled to a slice spacing of "
        "{step:.3g} mm.",
        "DICOM 分割的层间距不均；掩膜已重采样为 {step:.3g} 毫米的层间距。",
    ),
    "contours-damaged": (
        "{file} is a damaged DICOM structure set (RTSTRUCT): export it again.",
        "{file} 是已损坏的 DICOM 结构集（RTSTRUCT）：请重新导出。",
    ),
    "contours-cut-short": (
        "{file} is damaged: a contour of {count} numbers does not have the stated number of points; export it again.",
        "{file} 已损坏：某条轮廓的 {count} 个数值与其声明的点数不符；请重新导出。",
    ),
    "contours-not-numbers": (
        "{file} has contour points that are not finite numbers (NaN or infinite): export it again.",
        "{file} 的轮廓点不是数值（NaN 或无穷大）：请重新导出。",
    ),
    "contours-missing": (
        "{file} is damaged: it lists the lesion '{name}' but contains no contours of it; export it again.",
        "{file} 已损坏：列有病灶“{name}”但没有其轮廓；请重新导出。",
    ),
    "contours-no-lesion": (
        "No region of {file} has the name of a lesion ({names}): name the region of the enhancing and necrotic "
        "tumour 'GTV'.",
        "{file} 中没有名称表示病灶的区域（{names}）：请将强化及坏死肿瘤的区域命名为“GTV”。",
    ),
    "contours-none": (
        "The lesion in {file} has no closed contour: draw it again, or remove the file.",
        "{file} 中的病灶没有闭合轮廓：请重新勾画，或删除该文件。",
    ),
    "contours-cover-nothing": (
        "The contours in {file} cover no voxel of the series they were applied to: check that both belong to the "
        "same patient.",
        "{file} 的轮廓未覆盖对应序列的任何体素：请核对两者是否属于同一患者。",
    ),
    "contours-off-plane": (
        "The contours in {file} do not lie on the slices of the series they were applied to: provide the series on "
        "which they were drawn.",
        "{file} 的轮廓不在对应序列的层面上：请提供勾画所用的序列。",
    ),
    "contours-off-all": (
        "The contours in {file} do not lie on the slices of any of the patient's series ({sequences}): export the "
        "series on which they were drawn.",
        "{file} 的轮廓不在患者任一序列（{sequences}）的层面上：请导出勾画所用的序列。",
    ),
    "contours-beyond": (
        "The contours in {file} extend beyond the {slices} slices of the series they were applied to: export the "
        "whole series.",
        "{file} 的轮廓超出对应序列的 {slices} 个层面：请导出完整序列。",
    ),
    "contours-gaps": (
        "{count} slice(s) between the first and the last contour have no contour; the mask is empty there.",
        "首末轮廓之间有 {count} 个层面没有轮廓，这些层面的掩膜为空。",
    ),
    # ---- tables and labels ------------------------------------------------------------------------------
    "table-no-file": (
        "{table} is a pipe, a socket or a device, not a file: save the table as CSV or xlsx first.",
        "{table} 是管道、套接字或设备，不是文件：请先将表格保存为 CSV 或 xlsx。",
    ),
    "table-unopenable": (
        "The table {table} cannot be opened ({reason}): check the path.",
        "无法打开表格 {table}（{reason}）：请检查路径。",
    ),
    "table-old-workbook": (
        "{table} is an old or password-protected workbook: save it as plain xlsx or CSV.",
        "{table} 是旧版或有密码保护的工作簿：请另存为无密码的 xlsx 或 CSV。",
    ),
    "table-web-page": (
        "{table} is a web page or XML, not a table, regardless of its file name: open it in a spreadsheet program "
        "and save it as xlsx or CSV.",
        "{table} 的内容是网页或 XML，不是表格：请用电子表格软件打开后另存为 xlsx 或 CSV。",
    ),
    "table-damaged-workbook": (
        "{table} is a damaged workbook, or has no sheet with cells: save it again as xlsx or CSV.",
        "{table} 已损坏，或没有含数据的工作表：请重新另存为 xlsx 或 CSV。",
    ),
    "table-encoding": (
        "{table} is not UTF-8, UTF-16 or GB18030 text: save it as CSV UTF-8.",
        "{table} 不是 UTF-8、UTF-16 或 GB18030 编码的文本：请另存为“CSV UTF-8”。",
    ),
    "table-not-csv": (
        "{table} is not a valid CSV table ({reason}): save it again as CSV UTF-8.",
        "{table} 不是有效的 CSV 表格（{reason}）：请重新另存为“CSV UTF-8”。",
    ),
    "table-row-too-long": (
        "Row {row} in {table} has more cells than the header: check for a comma inside a cell.",
        "{table} 中的行 {row} 比表头的单元格多：请检查单元格内是否有逗号。",
    ),
    "no-columns": ("none", "无"),
    "table-no-id": (
        "{table} has no id column (columns: {columns}): name the column with the patient ids id.",
        "{table} 没有患者编号列（现有列：{columns}）：请将患者编号列命名为 id。",
    ),
    "table-id-twice": (
        "{table} has two columns for {column}: keep one.",
        "{table} 中有两列都表示 {column}：请只保留一列。",
    ),
    "table-several-ids": (
        "{table} has several columns that may contain the patient's id ({columns}): name the correct one id.",
        "{table} 中有多列可能是患者编号（{columns}）：请将正确的一列命名为 id。",
    ),
    "table-column-twice": (
        "{table} contains the column {column} twice: keep one.",
        "{table} 中列 {column} 出现两次：请只保留一列。",
    ),
    "table-two-meanings": (
        "{table} has several columns for {meaning} ({columns}): keep one.",
        "{table} 中有多列都表示 {meaning}（{columns}）：请只保留一列。",
    ),
    "row-missing": (
        "Patient {patient} has no row in {table}: add one row with this id.",
        "{table} 中没有患者 {patient}：请在表格中为该编号添加一行。",
    ),
    "row-missing-similar": (
        "Patient {patient} has no row in {table}, but a similar id exists ({similar}); a spreadsheet program may "
        "have changed the id: if it is the same patient, enter the id in the table as {patient}, as text.",
        "{table} 中没有患者 {patient}，仅有相似的编号 {similar}，编号可能被电子表格软件改动：若为同一患者，请在表格"
        "中以文本形式将编号改为 {patient}。",
    ),
    "row-repeated": (
        "Patient {patient} has {count} rows in {table} with different contents: keep one row with this id.",
        "患者 {patient} 在 {table} 中有 {count} 行且内容不一致：每个编号请只保留一行。",
    ),
    "age-missing": (
        "The age of patient {patient} in {table} is missing: enter it, or allow prediction without it.",
        "{table} 中患者 {patient} 的年龄缺失：请补填，或允许在缺少年龄的情况下预测。",
    ),
    "sex-missing": (
        "The sex of patient {patient} in {table} is missing: enter it, or allow prediction without it.",
        "{table} 中患者 {patient} 的性别缺失：请补填，或允许在缺少性别的情况下预测。",
    ),
    "age-refused": (
        "The age {cell} of patient {patient} in {table} {reason}.",
        "{table} 中患者 {patient} 的年龄“{cell}”{reason}。",
    ),
    "sex-refused": (
        "The sex {cell} of patient {patient} in {table} {reason}.",
        "{table} 中患者 {patient} 的性别“{cell}”{reason}。",
    ),
    "age-typed": ("The age {cell} {reason}.", "年龄“{cell}”{reason}。"),
    "age-not-number": (
        "is not an age in years: enter a number of years, such as 45",
        "不是以岁计的数字：请填写岁数，如 45",
    ),
    "age-months-or-male": (
        "may be an age in months or the age of a man: enter it as '18 months', or as years alone",
        "可能是月龄，也可能是男性的年龄：请写“18个月”，或只写岁数",
    ),
    "age-nought": (
        "is 0: leave it empty if the age is unknown; enter the age of an infant in months, such as 6M",
        "为 0：年龄未知请留空；婴儿请按月填写，如 6M",
    ),
    "age-outside": ("is outside 0 to {oldest} years: correct it", "不在 0 至 {oldest} 岁之间：请更正"),
    "age-birth-year": ("is a year of birth: enter the age in years", "是出生年份：请填写岁数"),
    "age-date": ("is a date: enter the age in years", "是日期：请填写岁数"),
    "age-impossible": (
        "The age {age} is invalid: give a number of years from 0 to {oldest}, or None if it is unknown.",
        "年龄 {age} 无效：请给出 0 至 {oldest} 之间的岁数，未知时为 None。",
    ),
    "sex-impossible": (
        "The sex {sex} is invalid: give 0 for male, 1 for female, or None if it is unknown.",
        "性别 {sex} 无效：男性为 0，女性为 1，未知时为 None。",
    ),
    "sex-is-not-understood": ("is not a valid value: {reason}", "无法识别：{reason}"),
    "sex-words": ("enter M or 0 (male), F or 1 (female)", "请填写 M 或 0（男）、F 或 1（女）"),
    "sex-not-stated": ("the column name defines other codes", "列名中定义的编码不包括该值"),
    "sex-mixed": (
        "the column mixes numbers and words; use M and F throughout",
        "该列混用数字与文字；请统一填写 M 和 F",
    ),
    "sex-codes": (
        "the numbers in the column are neither 0 and 1 (male, female) nor 1 and 2 (male, female); use M and F",
        "该列的数字既不是 0 和 1（男、女），也不是 1 和 2（男、女）；请填写 M 和 F",
    ),
    "sex-lone-code": (
        "1 is the only number in the column, and the coding may be 1 and 2 (1 is male) or 0 and 1 (1 is female); "
        "use male and female, or name the column 'sex (1=female)' or 'sex (1=male)'",
        "该列只有数字 1，可能按 1/2 编码（1 为男），也可能按 0/1 编码（1 为女）；请填写“男”或“女”，或将列名写为“性别"
        "(1=女)”或“性别(1=男)”",
    ),
    "sex-m-or-mujer": (
        "is ambiguous: in a column with H, M may mean mujer (female); use male and female",
        "含义不明：与 H 并用时 M 可能表示女性（mujer）；请填写“男”或“女”",
    ),
    "ki67-threshold": (
        "The Ki-67 threshold {threshold:g} is not a valid percentage: give a number above 0 and up to 100.",
        "Ki-67 阈值 {threshold:g} 不是有效的百分数：请给出大于 0 且不超过 100 的数值。",
    ),
    "labels-repeated": (
        "Patient {patient} has several different rows in {table}: keep the one that belongs to the examination.",
        "患者 {patient} 在 {table} 中有多行且内容不同：请只保留与该次检查对应的一行。",
    ),
    "labels-two-patients": (
        "Row {row} in {table} may belong to {patient} or to {other}: enter the exact id of each patient in the "
        "table.",
        "{table} 中的行 {row} 可能属于 {patient}，也可能属于 {other}：请在表格中准确填写每位患者的编号。",
    ),
    "labels-two-meanings": (
        "Both {one} and {other} in {table} mean {meaning}: keep one.",
        "{table} 中 {one} 与 {other} 都表示 {meaning}：请只保留一列。",
    ),
    "labels-left-out": (
        "Omitted because they may identify a patient: {columns}.",
        "以下列可能识别患者身份，已去除：{columns}。",
    ),
    "labels-rows-differ": (
        "{count} patient(s) have several rows with different contents.",
        "有 {count} 位患者存在多行且内容不一致。",
    ),
    "labels-faults": ("In {table}: {faults}.", "{table} 中：{faults}。"),
    "faults-joined": ("{first}; {second}", "{first}；以及{second}"),
    "faults-and-more": ("{faults} (and {count} more)", "{faults}（另有 {count} 处）"),
    "cell-fault": ("{column} '{cell}' of {patient} {reason}", "{patient} 的 {column}“{cell}”{reason}"),
    "cell-refused": (
        "is not a valid value ({reason}): enter {choices}",
        "无法识别（{reason}）：请填写{choices}",
    ),
    "cell-not-understood": ("is not a valid value: enter {choices}", "无法识别：请填写{choices}"),
    "choices-idh": ("1 or 0, or mutant or wild type", " 1 或 0，或“突变型”“野生型”"),
    "choices-mgmt": ("1 or 0, or methylated or unmethylated", " 1 或 0，或“甲基化”“未甲基化”"),
    "choices-codel": ("1 or 0, or codeleted or intact", " 1 或 0，或“共缺失”“无共缺失”"),
    "choices-level": ("1 or 0, or high or low", " 1 或 0，或“高”“低”"),
    "cell-unknown-word": ("'{word}' is unknown", "“{word}”不是已知词语"),
    "cell-ambiguous": ("it has several possible meanings", "有多种可能的含义"),
    "cell-contradicts": ("its parts contradict each other", "各部分相互矛盾"),
    "cell-no-result": ("it contains no result", "没有给出结果"),
    "cell-other-finding": ("it refers to another finding", "该内容属于其他指标"),
    "cell-partly-known": ("one result is known and another is not", "部分结果已知，部分未知"),
    "cell-one-part": ("it states {part} only", "只包含 {part}"),
    "column-coding": (
        "The name of the column {column} in {table} defines codes that cannot be interpreted: enter the results as "
        "words.",
        "{table} 中列名“{column}”所定义的编码无法识别：请用文字填写结果。",
    ),
    "cell-code-unstated": ("is not one of the codes in the column name", "不在列名定义的编码之内"),
    "cell-protein": (
        "may be a stain for the protein rather than the methylation: enter {choices}",
        "可能是蛋白染色结果，而非甲基化：请填写{choices}",
    ),
    "cell-sign-of-arm": (
        "may mean lost or not lost: enter {choices}",
        "可能表示缺失，也可能表示无缺失：请填写{choices}",
    ),
    "cell-no-grade": (
        "is not a single WHO grade: enter 1, 2, 3 or 4",
        "不是单一的 WHO 分级：请填写 1、2、3 或 4",
    ),
    "percent-none": ("is not a percentage: enter a number such as 15", "不是百分数：请填写数字，如 15"),
    "percent-above": ("is above 100 %", "超过 100%"),
    "percent-reversed": ("is a range whose first value is larger than its second", "范围的起点大于终点"),
    "percent-or-share": (
        "may mean {high:g} % or {low:g} %: add a % sign",
        "可能是 {high:g}%，也可能是 {low:g}%：请写上百分号",
    ),
    "ki67-ranges": (
        "{count} Ki-67 range(s) were replaced by their mean.",
        "{count} 个 Ki-67 范围值已以均值代替。",
    ),
    "ki67-bounds": (
        "{count} Ki-67 value(s) are only a bound (such as <5%): the level is used if it follows from the bound, and "
        "no percentage.",
        "{count} 个 Ki-67 值只有界限（如 <5%）：能据此判断高低的只记录高低，不记录百分数。",
    ),
    "ki67-disagrees": (
        "In {count} patient(s) the stated Ki-67 level disagrees with the threshold of {threshold:g} %; the "
        "percentage was used.",
        "{count} 位患者的 Ki-67 高低与 {threshold:g}% 的阈值不符；已以百分数为准。",
    ),
    "birth-no-date": (
        "A date of birth or examination is not a valid date (YYYYMMDD): correct it, or enter the age in the table.",
        "出生日期或检查日期不是有效日期（YYYYMMDD）：请更正，或在表格中填写年龄。",
    ),
    "birth-after-study": (
        "An examination is dated before the patient's birth: correct the dates.",
        "检查日期早于患者出生日期：请更正日期。",
    ),
    "predictions-foreign": (
        "{table} is not a table of gliomark predictions (the columns {columns} are missing): move it, or choose "
        "another output folder.",
        "{table} 不是 gliomark 的预测结果表（缺少列 {columns}）：请移走该文件，或选择其他输出文件夹。",
    ),
    "row-of-another": (
        "The clinical row belongs to patient {row}, the images to patient {patient}: provide the row of {patient}.",
        "临床数据行属于患者 {row}，影像属于患者 {patient}：请提供患者 {patient} 的数据行。",
    ),
    "table-huge": (
        "{table} is far larger than any table of patients, or has a cell far away from the others: copy the "
        "required rows and columns into a new file.",
        "{table} 远大于任何患者表格，或有单元格远离其他内容：请将所需的行和列复制到新文件。",
    ),
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    "sequence-missing": (
        "{folder}: the sequence {missing} is missing (found: {found}): add it, or choose a model that does not need "
        "it.",
        "{folder}：缺少 {missing} 序列（已找到：{found}）：请补充该序列，或选择不需要它的模型。",
    ),
    "field-of-no-head": (
        "{file} has a field of view of {field} mm (voxels of {steps} mm), which is impossible for a head: check the "
        "voxel size and its units.",
        "{file} 的视野为 {field} 毫米（体素 {steps} 毫米），不可能是头部影像：请核对体素大小及其单位。",
    ),
    "brain-not-found": (
        "No brain was found in the image ({reason}): check that it is an axial head MRI.",
        "影像中未找到脑组织（{reason}）：请确认是轴位头部磁共振影像。",
    ),
    "brain-too-small": (
        "Only {ml:.0f} ml of brain was found in the image: check that it is a complete axial head MRI.",
        "影像中仅找到 {ml:.0f} 毫升脑组织：请确认是完整的轴位头部磁共振影像。",
    ),
    "brain-implausible": (
        "The brain in {file} would measure {ml:.0f} ml ({extent} mm), which is impossible: check the voxel size "
        "({steps} mm) and its units.",
        "{file} 中的脑体积将达 {ml:.0f} 毫升（{extent} 毫米），不可能成立：请核对体素大小（{steps} 毫米）及其单位。",
    ),
    "brain-small": (
        "Only {ml:.0f} ml of brain was found, less than in an adult: check that the whole head is shown and that "
        "the voxel size ({steps} mm) is correct; areas and volumes depend on it.",
        "仅找到 {ml:.0f} 毫升脑组织，少于成人脑体积：请核对影像是否包含整个头部以及体素大小（{steps} 毫米）是否正确，"
        "面积和体积取决于此。",
    ),
    "brain-partly-shown": (
        "{sequence} covers only {percent:.0f} % of the brain (missing: {part}); the part not covered was not "
        "examined.",
        "{sequence} 仅覆盖 {percent:.0f} % 的脑组织（缺少{part}）；未覆盖的部分未作分析。",
    ),
    "brain-cut": (
        "The images do not cover the whole brain (missing: {part}); the part not covered was not examined.",
        "所有影像均未覆盖全脑（缺少{part}）；未覆盖的部分未作分析。",
    ),
    "brain-top": ("the top", "顶部"),
    "brain-bottom": ("the bottom", "底部"),
    "brain-left": ("the left side", "左侧"),
    "brain-right": ("the right side", "右侧"),
    "brain-front": ("the front", "前部"),
    "brain-back": ("the back", "后部"),
    "brain-top-and-bottom": ("top and bottom", "顶部和底部"),
    "brain-left-and-right": ("both sides", "左右两侧"),
    "brain-back-and-front": ("front and back", "前部和后部"),
    "brain-all": ("the whole brain", "全脑"),
    "skull-gone": (
        "The images are already skull-stripped; skull stripping was skipped.",
        "影像已去除颅骨，未再作去颅骨处理。",
    ),
    "skull-gone-in-some": (
        "{sequences}: already skull-stripped, unlike the other sequences; the brain mask was taken from {sequences}.",
        "{sequences} 已去除颅骨，其余序列未去除；脑掩膜取自 {sequences}。",
    ),
    "slices-empty": (
        "{name} has no image on slice {slices}, which lies within the brain (one grey value in the whole slice, "
        "{file}): export the series again.",
        "{name} 的层面 {slices} 位于脑内却没有图像（整层为同一灰度，{file}）：请重新导出该序列。",
    ),
    "slices-empty-at-ends": (
        "{name} has no image on slice {slices}, at the end of its coverage, although the slice lies within the "
        "brain; that part was not examined.",
        "{name} 的末端层面 {slices} 位于脑内却没有图像；该部分未作分析。",
    ),
    "slices-background": (
        "{name}: slice {slices} has only one grey value and is treated as background.",
        "{name}：层面 {slices} 全部为同一灰度，按背景处理。",
    ),
    "voxels-missing": (
        "{name} has voxels without a grey value (not a number, or transparent) within the brain, in slice {slices} "
        "({file}): export or convert it again.",
        "{name} 的脑内有体素没有灰度值（非数值或透明），位于层面 {slices}（{file}）：请重新导出或转换。",
    ),
    "brain-of-one-grey": (
        "{name} has a single grey value in the whole brain: check the exported series.",
        "{name} 在整个脑内只有一个灰度值：请检查导出的序列。",
    ),
    "not-aligned": (
        "Two sequences could not be registered: they show different regions, or one has fewer than four slices: "
        "check that they are complete axial series of one patient.",
        "两个序列无法配准：它们显示不同部位，或其中一个少于四层：请确认它们是同一患者完整的轴位序列。",
    ),
    "brain-in-no-slice": (
        "No slice shows enough brain (8 cm2): check that it is an axial head MRI.",
        "没有任何层面显示足够的脑组织（8 平方厘米）：请确认是轴位头部磁共振影像。",
    ),
    "qc-id-unknown": (
        "{folder}/qc.csv rejects {patient}, which is no patient of the cohort but looks like {similar}: enter the exact id; "
        "a spreadsheet drops leading zeros.",
        "{folder}/qc.csv 拒绝了 {patient}，队列中没有该患者，但有相近的编号 {similar}：请填写准确的编号（电子表格会去掉前导零）。",
    ),
    "cohort-slice-altered": (
        "{path} was changed after 'cohort build' wrote it: build the cohort again, which prepares this patient "
        "again.",
        "{path} 在“cohort build”写入后被改动：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-missing": (
        "{path} is missing: build the cohort again, which prepares this patient again.",
        "缺少 {path}：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-damaged": (
        "{path} is damaged: build the cohort again, which prepares this patient again.",
        "{path} 已损坏：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-not-hashed": (
        "Patient {patient} was prepared by an older version of gliomark without hashes; it could not be checked "
        "whether the prepared images have been changed.",
        "患者 {patient} 由较早版本的 gliomark 处理，未保存校验值；无法核查处理后的影像是否被改动。",
    ),
    "cohort-slice-unusable": (
        "{path} has contents that preparation never writes (values that are not numbers, another size, or a mask "
        "that is not 0 and 1): build the cohort again, which prepares this patient again.",
        "{path} 含有预处理不会写入的内容（非数值、尺寸不同，或掩膜不是 0 和 1）：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-record-damaged": (
        "{path} is damaged or not a record of this cohort: build the cohort again, or restore the file.",
        "{path} 已损坏或不是该队列的记录：请重新构建队列，或恢复该文件。",
    ),
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    "outline-outside-brain": (
        "{percent:.0f} % of the outline lies outside the brain: check the outline before you use any of the numbers.",
        "所勾画病灶的 {percent:.0f}% 位于脑外：使用任何数值前请先核对勾画。",
    ),
    "lesion-too-large": (
        "The outline covers {percent:.0f} % of the examined brain, more than a glioma does: check the outline before you "
        "use any of the numbers.",
        "所勾画的病灶占所分析脑组织的 {percent:.0f}%，超过胶质瘤可能的范围：使用任何数值前请先核对勾画。",
    ),
    "no-lesion-in-part": (
        "No lesion was found in the {percent:.0f} % of the brain that the images cover; the rest was not examined, "
        "and no marker is predicted.",
        "在影像所覆盖的 {percent:.0f} % 脑组织中未发现病灶；其余部分未作分析，未预测标志物。",
    ),
    "no-lesion-in-part-shown": (
        "No lesion was found in the part of the brain that the images cover; the rest was not examined, and no "
        "marker is predicted.",
        "在影像所覆盖的部分脑组织中未发现病灶；其余部分未作分析，未预测标志物。",
    ),
    "no-outline": (
        "The reader's outline is empty; no marker is predicted.",
        "阅片者未保留任何勾画，因此未预测标志物。",
    ),
    "age-or-sex-unknown": (
        "Age or sex is unknown; the markers were predicted without it, which has not been validated.",
        "年龄或性别未知；标志物是在缺少该信息的情况下预测的，这种用法未经验证。",
    ),
    "stood-in": (
        "{wanted} is missing; {shown} was used in its place, for which the networks were not trained: check the "
        "outline. No marker is predicted by the model.",
        "缺少 {wanted} 序列，以 {shown} 代替输入网络，而网络并未针对此用法训练：请核对病灶轮廓。模型不预测任何标志物。",
    ),
    "marker-on-stand-in": (
        "The networks were given {shown} in place of {wanted}. The marker has not been validated on such images, so "
        "neither a level nor a probability is given.",
        "输入网络的是 {shown} 而非 {wanted}。该标志物未在此类影像上验证，因此不给出判定结果和概率。",
    ),
    "outline-by-second-network": (
        "{missing} is missing; the lesion was outlined on {used}, by the model's network for these sequences. The "
        "model predicts no marker from them.",
        "缺少 {missing} 序列；病灶由模型中专用于 {used} 的网络勾画。模型不据此预测标志物。",
    ),
    "marker-needs-sequence": (
        "The marker was validated with {missing} only, which is missing, so neither a level nor a probability is given.",
        "该标志物仅在含 {missing} 的影像上验证过，而此处缺少该序列，因此不给出判定结果和概率。",
    ),
    "marker-refused": (
        "The images are not like those on which the model was trained, as the warnings of this patient say, so neither "
        "a level nor a probability is given.",
        "影像与模型的训练影像不符（详见该患者的警告），因此不给出判定结果和概率。",
    ),
    # ---- comparison with the training patients ------------------------------------------------------------
    "range-too-few-patients": (
        "The cohort {cohort} has fewer than {least} of the patients on whom the model was trained, with its sequences "
        "and a lesion mask: give the prepared cohort of its training.",
        "队列 {cohort} 中具备该模型所需序列和病灶掩膜的训练患者不足 {least} 名：请提供训练该模型所用的已准备队列。",
    ),
    "range-same-image": (
        "{one} and {other} show the same image: export both sequences again, each from its own series. No marker is "
        "predicted.",
        "{one} 与 {other} 是同一幅影像：请分别从各自的序列重新导出。未预测标志物。",
    ),
    "range-swapped": (
        "{one} and {other} seem to be interchanged: each looks like the other. Give them the right names; no marker is "
        "predicted.",
        "{one} 与 {other} 似乎互换了：两者的表现分别与对方一致。请更正序列名称；未预测标志物。",
    ),
    "range-inverted": (
        "{name} seems to be inverted (bright and dark exchanged), or to be another sequence such as T2: check which "
        "series was exported as {name}, and its grey scale. No marker is predicted.",
        "{name} 的灰度似乎被反转（明暗颠倒），或实为 T2 等其他序列：请核对导出为 {name} 的是哪个序列及其灰度。未预测标志"
        "物。",
    ),
    "range-fluid-bright": (
        "Cerebrospinal fluid is bright on the image that is named {name}, as on T2; it should be dark. Check which "
        "series was exported as {name}; no marker is predicted.",
        "名为 {name} 的影像上脑脊液呈高信号，与 T2 相同；{name} 上应为低信号。请核对导出为 {name} 的是哪个序列；未预测标"
        "志物。",
    ),
    "range-fluid-dark": (
        "Cerebrospinal fluid is dark on the image that is named {name}, as on T1 or FLAIR; it should be bright. Check "
        "which series was exported as {name}, and its grey scale; no marker is predicted.",
        "名为 {name} 的影像上脑脊液呈低信号，与 T1 或 FLAIR 相同；{name} 上应为高信号。请核对导出为 {name} 的是哪个序列及其"
        "灰度；未预测标志物。",
    ),
    "range-no-contrast-agent": (
        "No enhancing vessels are seen on {name}, as without contrast agent. Check whether the series before contrast "
        "agent was exported as {name}; no marker is predicted.",
        "{name} 上未见血管强化，与未注射对比剂的影像相同。请核对是否误将增强前的序列导出为 {name}；未预测标志物。",
    ),
    "range-computed-tomography": (
        "{name} looks like computed tomography, not like MRI. Check which series was exported as {name}; no marker is "
        "predicted.",
        "{name} 的表现类似 CT 而非 MRI。请核对导出为 {name} 的是哪个序列；未预测标志物。",
    ),
    "range-t1-weighted": (
        "The image that is named {name} looks T1-weighted. Check which series was exported as {name}; no marker is "
        "predicted.",
        "名为 {name} 的影像表现为 T1 加权像。请核对导出为 {name} 的是哪个序列；未预测标志物。",
    ),
    "range-displaced-far": (
        "{one} seems to be displaced by {value:.1f} mm relative to {other}, so that they do not show the same position. "
        "Check that both belong to the same examination; no marker is predicted.",
        "{one} 相对 {other} 似乎偏移了 {value:.1f} mm，两者位置不一致。请核对两者是否属于同一次检查；未预测标志物。",
    ),
    "range-image-unlike": (
        "{name} does not look like {name} of the {patients} patients on whom the model was trained. Check which series "
        "was exported as {name}; if it is the right one, this model is not suitable for this examination. No marker is "
        "predicted.",
        "{name} 与模型的 {patients} 名训练患者的 {name} 影像不同。请核对导出为 {name} 的是哪个序列；若序列无误，则该模"
        "型不适用于此检查。未预测标志物。",
    ),
    "range-images-unlike": (
        "The images do not look like those of the {patients} patients on whom the model was trained. Check which series "
        "were exported; if they are the right ones, this model is not suitable for this examination. No marker is "
        "predicted.",
        "影像与模型的 {patients} 名训练患者的影像不同。请核对所导出的序列；若序列无误，则该模型不适用于此检查。未预测标志"
        "物。",
    ),
    "range-relation-unlike": (
        "{one} and {other} do not fit together as in the {patients} patients on whom the model was trained. Check "
        "that both belong to the same examination, carry the right names and show the same position; no marker is "
        "predicted.",
        "{one} 与 {other} 的对应关系与模型的 {patients} 名训练患者不同。请核对两者是否属于同一次检查、名称是否正确、位置"
        "是否一致；未预测标志物。",
    ),
    "range-unusual-image": (
        "{name} looks unusual compared with the {patients} patients on whom the model was trained: its measured "
        "accuracy may not apply to this patient.",
        "与模型的 {patients} 名训练患者相比，{name} 的表现不常见：模型验证所得的准确性可能不适用于该患者。",
    ),
    "range-unusual-images": (
        "The images look unusual compared with the {patients} patients on whom the model was trained: its measured "
        "accuracy may not apply to this patient.",
        "与模型的 {patients} 名训练患者相比，影像的表现不常见：模型验证所得的准确性可能不适用于该患者。",
    ),
    "range-unusual-lesion": (
        "The lesion looks unusual compared with those of the {patients} patients on whom the model was trained (size, "
        "place or brightness); it may not be a glioma, or the outline may be wrong.",
        "与模型的 {patients} 名训练患者相比，病灶的大小、部位或信号不常见：可能不是胶质瘤，或轮廓有误。",
    ),
    "range-outside": (
        "{measure} is {value}, outside what the {patients} training patients had ({low} to {high}): the measured "
        "accuracy of the model may not apply to this patient.",
        "{measure}为 {value}，超出 {patients} 名训练患者的范围（{low} 至 {high}）：模型验证所得的准确性可能不适用于该患者。",
    ),
    "range-displaced": (
        "{one} seems to be displaced by {value:.1f} mm relative to {other}; the training patients had up to "
        "{high:.1f} mm. Check that both show the same position.",
        "{one} 相对 {other} 似乎偏移了 {value:.1f} mm；训练患者最多为 {high:.1f} mm。请核对两者位置是否一致。",
    ),
    "range-brain-volume": ("The brain volume", "脑体积"),
    "range-slice-spacing": ("The slice spacing", "层间距"),
    "range-lesion-volume": ("The lesion volume", "病灶体积"),
    "range-lesion-parts": ("The number of separate lesions", "相互分离的病灶数"),
    "marker-not-validated": (
        "The model has not been validated for this marker on patients outside its training data, so neither a level "
        "nor a probability is given.",
        "该模型对此标志物的预测尚未在未参与训练的患者上验证，因此不给出判定结果和概率。",
    ),
    "marker-at-chance": (
        "Not shown to be better than chance in validation (AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}; {patients} patients, "
        "{positives} positive), so neither a level nor a probability is given.",
        "验证中未能证明优于随机猜测（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}；{patients} 例患者，阳性 "
        "{positives} 例），因此不给出判定结果和概率。",
    ),
    "marker-better-than-chance": (
        "Better than chance in validation (AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}; {patients} patients, "
        "{positives} positive), so levels and probabilities are given.",
        "验证中优于随机猜测（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}；{patients} 例患者，阳性 {positives} "
        "例），因此给出判定结果和概率。",
    ),
    "fusion-not-validated": (
        "Calibration, threshold and validation apply to the rule 'near'; they have not been evaluated for the rule "
        "'{fusion}'.",
        "校准、阈值与验证结果均针对“near”规则；未针对“{fusion}”规则进行评估。",
    ),
    "borderline": (
        "Borderline: the probability is within {margin:.0f} percentage points of the threshold, so a small change "
        "in the images or the outline can change the result.",
        "临界：概率与阈值相差不超过 {margin:.0f} 个百分点，影像或轮廓稍有变化即可能改变结论。",
    ),
    "cannot-tell": (
        "The model cannot tell: at a probability of {positive} of {probability}, both {positive} and {negative} are "
        "possible.",
        "模型无法判断：{positive}的概率为 {probability} 时，{positive}与{negative}均有可能。",
    ),
    "limits": (
        "The model states {positive} above {upper} and {negative} below {lower}; between them it cannot tell. With these "
        "limits, at most {error} of {positive} patients and {error} of {negative} patients are expected to receive the "
        "wrong level; they were computed from {positives} {positive} and {negatives} {negative} patients, predicted by "
        "models not trained on them.",
        "概率高于 {upper} 判为{positive}，低于 {lower} 判为{negative}，介于两者之间则无法判断。按此界限，预计{positive}患者"
        "与{negative}患者中各有至多 {error} 被判错；界限由 {positives} 例{positive}、{negatives} 例{negative}患者算出，预测"
        "每例的模型均未用该患者训练。",
    ),
    "limits-positive-only": (
        "The model states {positive} above {upper} and otherwise cannot tell: {positives} {positive} patients are too few "
        "to state {negative} at a coverage of {coverage}. At most {error} of {negative} patients are expected to receive "
        "the wrong level, as computed from {negatives} {negative} patients, predicted by models not trained on them.",
        "概率高于 {upper} 判为{positive}，否则无法判断：{positive}患者仅 {positives} 例，不足以在 {coverage} 的覆盖率下判为"
        "{negative}。预计{negative}患者中至多 {error} 被判错，由 {negatives} 例{negative}患者算出，预测每例的模型均未用该患"
        "者训练。",
    ),
    "limits-negative-only": (
        "The model states {negative} below {lower} and otherwise cannot tell: {negatives} {negative} patients are too few "
        "to state {positive} at a coverage of {coverage}. At most {error} of {positive} patients are expected to receive "
        "the wrong level, as computed from {positives} {positive} patients, predicted by models not trained on them.",
        "概率低于 {lower} 判为{negative}，否则无法判断：{negative}患者仅 {negatives} 例，不足以在 {coverage} 的覆盖率下判为"
        "{positive}。预计{positive}患者中至多 {error} 被判错，由 {positives} 例{positive}患者算出，预测每例的模型均未用该患"
        "者训练。",
    ),
    "limits-none": (
        "The model states no level: {positives} {positive} and {negatives} {negative} patients are too few for a coverage "
        "of {coverage}.",
        "模型不给出判定结果：{positives} 例{positive}、{negatives} 例{negative}患者不足以达到 {coverage} 的覆盖率。",
    ),
    "calibrated": (
        "Calibrated ({method}) on {patients} patients of {cohort}, each predicted by models not trained on that patient. "
        "{basis}{before}",
        "已用 {cohort} 的 {patients} 例患者校准（{method}），每例均由训练中未使用该患者的模型预测。{basis}{before}",
    ),
    "calibration-unchanged": (
        "The model's own probability is used: on {patients} patients of {cohort} no calibration curve was better, or they "
        "were too few to fit one. {basis}{before}",
        "采用模型自身的概率：在 {cohort} 的 {patients} 例患者上，没有校准曲线更优，或患者过少而无法拟合。{basis}{before}",
    ),
    "probability-before-calibration": (" Before calibration the probability was {raw}.", "校准前概率为 {raw}。"),
    "probability-before-correction": (" Before this correction the probability was {raw}.", "校正前概率为 {raw}。"),
    "prevalence-of-calibration": (
        "It applies where {share} of the patients are {positive}, as there.",
        "适用于{positive}患者占 {share} 的人群（与校准时相同）。",
    ),
    "prevalence-corrected": (
        "It was corrected to a share of {prevalence} {positive} patients, which was given for this prediction; in the "
        "calibration it was {share}.",
        "已按本次预测给定的{positive}患者比例 {prevalence} 校正；校准时为 {share}。",
    ),
    "method-none": ("none", "无"),
    "method-shift": ("shift of the log-odds", "对数几率平移"),
    "method-temperature": ("temperature scaling", "温度缩放"),
    "method-platt": ("Platt scaling", "Platt 缩放"),
    "method-beta": ("beta calibration", "beta 校准"),
    "method-isotonic": ("isotonic regression", "保序回归"),
    "finding-without-idh": (
        "The reader's finding was not used: this model does not predict IDH.",
        "未采用阅片者所见：该模型不预测 IDH。",
    ),
    "finding-without-lesion": (
        "The reader's finding was not used: without a lesion, no marker is predicted.",
        "未采用阅片者所见：没有病灶，不预测标志物。",
    ),
    "finding-contradicted": (
        "The reader's finding and the model disagree: the finding indicates {found}, the model predicts {level} "
        "(probability of {positive}: {probability}).",
        "阅片者所见与模型不一致：前者提示{found}，模型预测为{level}（{positive}的概率：{probability}）。",
    ),
    "enhancing-not-understood": (
        "{given} is not a valid value for the enhancing focus; give True, False or, if it is not stated, None.",
        "强化灶的取值 {given} 无效；请给出 True 或 False，未说明时为 None。",
    ),
    "fusion-unknown": (
        "The fusion rule {given} is unknown; it must be near, all or large.",
        "未知的层面合并规则 {given}；只能是 near、all 或 large。",
    ),
    "no-mask": (
        "Patient {patient} has no lesion mask: draw one, or exclude the patient.",
        "患者 {patient} 没有病灶掩膜：请勾画，或排除该患者。",
    ),
    "mask-not-used": (
        "A lesion mask was found with the images ({file}). It was not used: the outline is the model's. The mask "
        "can be selected as the outline in the client.",
        "影像中附有一份病灶掩膜（{file}），未被采用：轮廓由模型勾画。可在客户端中选用该掩膜作为轮廓。",
    ),
    "mask-unreadable": (
        "A lesion mask was found with the images ({file}) but cannot be used: {reason}",
        "影像中附有一份病灶掩膜（{file}），但无法使用：{reason}",
    ),
    "clinical-not-given": (
        "No clinical table was given; specify one with --clinical, or add --allow-missing-clinical.",
        "未提供临床信息表；请用 --clinical 指定，或加 --allow-missing-clinical。",
    ),
    "batch-skipped": (
        "{count} of {total} patients were skipped: their results are complete and up to date.",
        "{total} 名患者中有 {count} 名已跳过：其结果完整且仍然有效。",
    ),
    "workers-and-scheduler": (
        "Workers and a scheduler were both given: give --workers for processes on this computer, or --scheduler for an "
        "existing cluster.",
        "同时给出了工作进程数和调度器：本机进程请用 --workers，已有集群请用 --scheduler。",
    ),
    "workers-too-few": (
        "{count} workers cannot predict: give 1 or more, or leave out --workers to predict in the command's own process.",
        "工作进程数不能为 {count}：请给出 1 或以上，或省略 --workers，在命令自身的进程中预测。",
    ),
    "workers-absent": (
        "The dask scheduler at {scheduler} has no workers: start some with 'dask worker'.",
        "dask 调度器 {scheduler} 没有工作进程：请用 dask worker 启动。",
    ),
    "worker-version": (
        "The worker on {host} has gliomark {found}, this command {expected}: install the same version on all machines.",
        "{host} 上的工作进程使用 gliomark {found}，本命令为 {expected}：请在所有机器上安装同一版本。",
    ),
    "worker-unusable": (
        "The dask workers cannot run gliomark ({kind}: {reason}): install the same version on all machines.",
        "dask 工作进程无法运行 gliomark（{kind}：{reason}）：请在所有机器上安装同一版本。",
    ),
    "worker-without-settings": (
        "The worker on {host} did not receive the settings of this batch: restart it, then give the same command with "
        "--resume.",
        "{host} 上的工作进程未收到本批次的设置：请重启该进程，再以同一命令加 --resume 继续。",
    ),
    "worker-other-weights": (
        "The worker on {host} finds another weights file at {model}: use one file that all machines see, and do not "
        "change it during a run.",
        "{host} 上的工作进程在 {model} 读到的是另一个权重文件：请使用所有机器可见的同一文件，运行期间不要更改。",
    ),
    "worker-unreachable": (
        "The worker on {host} cannot reach {folder}: all machines must see the same disks under the same paths.",
        "{host} 上的工作进程无法访问 {folder}：所有机器须以相同路径看到相同的磁盘。",
    ),
    "batch-worker-died": (
        "{folder} ended its worker process twice, usually for lack of memory: use fewer --workers, or leave it out.",
        "{folder} 两次导致工作进程终止，通常是内存不足：请减少 --workers，或移除该患者。",
    ),
    "scheduler-lost": (
        "The connection to the dask scheduler was lost: start it again, then give the same command with --resume.",
        "与 dask 调度器的连接已中断：请重新启动，再以同一命令加 --resume 继续。",
    ),
    "results-invisible": (
        "A worker wrote the results to {folder}, but they are not there on this computer: choose an output folder on a "
        "disk that all machines share.",
        "工作进程已将结果写入 {folder}，但本机看不到：请选择所有机器共享的磁盘上的输出文件夹。",
    ),
    "finding-many-patients": (
        "{folder} has {count} patients, but --enhancing is the finding of one; predict that patient's folder alone.",
        "{folder} 中有 {count} 名患者，而 --enhancing 只是其中一名的所见；请单独预测该患者的文件夹。",
    ),
    "mask-many-patients": (
        "{folder} has {count} patients, but --mask is the segmentation of one; predict that patient's folder alone.",
        "{folder} 中有 {count} 名患者，而 --mask 只是其中一名的掩膜；请单独预测该患者的文件夹。",
    ),
    "patient-twice": (
        "{folder} and {other} before it are both patient {patient}; put them into one folder, or use different ids.",
        "{folder} 与之前的 {other} 都是患者 {patient}；请放入同一文件夹，或使用不同的编号。",
    ),
    "not-predicted": (
        "No prediction could be made for {folder} ({kind}: {reason}).",
        "无法预测 {folder}（{kind}：{reason}）。",
    ),
    "nothing-to-explain": (
        "{folder}: no lesion was found, so there is no result to explain.",
        "{folder}：未发现病灶，没有可解释的结果。",
    ),
    "no-probability-to-explain": (
        "{folder}: the model gives no probability of {titles}, so there is none to explain. {reason}",
        "{folder}：模型未给出{titles}的概率，没有可解释的结果。{reason}",
    ),
    "no-marker-to-explain": (
        "The model {model} has no marker, so there is no result to explain.",
        "模型 {model} 不含任何标志物，没有可解释的结果。",
    ),
    # results: markers, their levels and their validation
    "title-idh": ("IDH", "IDH 基因状态"),
    "title-ki67": ("Ki-67", "Ki-67 状态"),
    "label-idh": (
        "positive: IDH1 or IDH2 is mutated; negative: wild type",
        "阳性：IDH1 或 IDH2 突变；阴性：野生型",
    ),
    "label-ki67": (
        "high: at least 10 % of the stained tumour cells are Ki-67 positive",
        "高表达：至少 10% 的肿瘤细胞 Ki-67 阳性",
    ),
    "level-mutant": ("mutant", "突变型"),
    "level-wild-type": ("wild type", "野生型"),
    "level-high": ("high", "高表达"),
    "level-low": ("low", "低表达"),
    "level-positive": ("positive", "阳性"),
    "level-negative": ("negative", "阴性"),
    "level-undetermined": ("undetermined", "不予判定"),
    "level-cannot-tell": ("cannot tell", "无法判断"),
    "level-borderline": ("borderline, leaning {level}", "临界，倾向{level}"),
    "performance": (
        "AUC {auc:.2f} (95 % interval {low:.2f} to {high:.2f}) in cross-validation on {patients} patients of "
        "{cohort}, {positives} of them positive; each patient was predicted by models not trained on that patient. "
        "The final model was refitted on all patients.",
        "在 {cohort} 的 {patients} 例患者（阳性 {positives} 例）上交叉验证，每例均由训练中未使用该患者的模型预测："
        "AUC {auc:.2f}（95% 置信区间 {low:.2f} 至 {high:.2f}）。最终模型用全部患者重新训练。",
    ),
    "performance-on-test-set": (
        "AUC {auc:.2f} (95 % interval {low:.2f} to {high:.2f}) on {patients} patients of {cohort}, {positives} of them "
        "positive. None of them was trained on.",
        "在 {cohort} 的 {patients} 例患者（阳性 {positives} 例）上测试：AUC {auc:.2f}（95% 置信区间 {low:.2f} 至 "
        "{high:.2f}）。这些患者均未用于训练。",
    ),
    "threshold-origin": (
        "{threshold}: the threshold with the highest sum of sensitivity and specificity in validation, in which "
        "{positives} of {patients} patients ({share}) were {positive}. A probability at or above it is reported as "
        "{positive}, below it as {negative}, even where a threshold of 50 % would give a different result.",
        "{threshold}：取验证中敏感度与特异度之和最大的阈值，当时 {patients} 例患者中 {positives} 例（{share}）为"
        "{positive}。概率达到或高于阈值判为{positive}，低于阈值判为{negative}，即使与以 50% 为界的判断不同。",
    ),
    "finding-performance": (
        "A rule of thumb, not the model: it was correct in {right} of {patients} {cohort} patients ({accuracy:.2f}; "
        "95 % interval {low:.2f} to {high:.2f}). {case} In that evaluation, enhancement was determined by a fixed "
        "rule on T1 and T1C, not by readers.",
        "这是经验规则而非模型：在 {cohort} 的 {patients} 例患者中 {right} 例判断正确（{accuracy:.2f}；95% 置信区间 "
        "{low:.2f} 至 {high:.2f}）。{case}该评估中的强化灶由基于 T1 与 T1C 的固定规则判定，而非由阅片者判定。",
    ),
    "finding-focus": (
        "With an enhancing focus, {right} of {of} patients were wild type.",
        "有强化灶的 {of} 例患者中 {right} 例为野生型。",
    ),
    "finding-no-focus": (
        "Without an enhancing focus, {right} of {of} patients were mutant.",
        "无强化灶的 {of} 例患者中 {right} 例为突变型。",
    ),
    "finding-in-short": (
        "A rule of thumb: correct in {right} of {patients} patients ({accuracy:.2f}); only {wild_type} of {focus} "
        "with an enhancing focus were wild type.",
        "经验规则：{patients} 例患者中 {right} 例正确（{accuracy:.2f}）；有强化灶的 {focus} 例中仅 {wild_type} 例为"
        "野生型。",
    ),
    "fusion-near-3": (
        "Mean of the three slices around the largest lesion.",
        "取病灶最大处附近 3 个层面的均值。",
    ),
    "fusion-near-2": (
        "Mean of the two slices around the largest lesion; on the other side there is no neighbouring slice with a lesion "
        "of at least 50 mm².",
        "取病灶最大处附近 2 个层面的均值；另一侧没有病灶面积达到 50 mm² 的相邻层面。",
    ),
    "fusion-near-1": (
        "Only the slice with the largest lesion; there is no neighbouring slice with a lesion of at least 50 mm².",
        "仅取病灶最大的层面；没有病灶面积达到 50 mm² 的相邻层面。",
    ),
    "fusion-large": ("Only the slice with the largest lesion.", "仅取病灶最大的层面。"),
    "fusion-all": (
        "Mean of all {count} analysed slices with a lesion.",
        "取全部 {count} 个所分析的含病灶层面的均值。",
    ),
    "outline-joint": (
        "all sequences together as one input ({sequences})",
        "各序列合并为一个输入（{sequences}）",
    ),
    "outline-union": (
        "each sequence separately, outlines merged ({sequences})",
        "各序列分别勾画后合并（{sequences}）",
    ),
    "outline-single": ("a single sequence ({sequences})", "仅用一个序列（{sequences}）"),
    "outline-by-reader": ("reader's outline", "阅片者的勾画"),
    # ---- arguments of the Python functions --------------------------------------------------------------
    "patient-source-unknown": (
        "{kind} is not a patient's images: give a folder, a mapping from sequences to images, or a Study.",
        "{kind} 不是患者影像：请给出文件夹、序列到影像的映射，或 Study。",
    ),
    "images-none": (
        "The mapping contains no images: give one for each sequence, such as T1C and FLAIR.",
        "映射中没有影像：请为每个序列（如 T1C 和 FLAIR）各给出一个。",
    ),
    "image-sequence-unknown": (
        "{name} does not name a sequence: use T1, T1C, T2 or FLAIR.",
        "{name} 不是序列名称：请使用 T1、T1C、T2 或 FLAIR。",
    ),
    "image-sequence-twice": (
        "{one} and {other} both name the sequence {sequence}: give one image of it.",
        "{one} 与 {other} 都表示 {sequence} 序列：请只给出一个影像。",
    ),
    "image-kind-unknown": (
        "The image for {sequence} is of the type {kind}: give a path, a nibabel or SimpleITK image, or a pair of array "
        "and affine.",
        "{sequence} 的影像类型为 {kind}：请给出路径、nibabel 或 SimpleITK 图像，或数组与仿射矩阵的二元组。",
    ),
    "image-affine-missing": (
        "The image for {sequence} is an array without position: give a pair of the array (i, j, k) and its affine, a "
        "4 x 4 matrix to RAS mm.",
        "{sequence} 的影像是没有空间位置的数组：请给出数组 (i, j, k) 与其仿射矩阵（4 x 4，至 RAS 毫米坐标）的二元组。",
    ),
    "image-affine-shape": (
        "The affine for {sequence} is not a 4 x 4 matrix of numbers with the last row 0, 0, 0, 1: give the affine of the "
        "image, as nibabel does.",
        "{sequence} 的仿射矩阵不是末行为 0、0、0、1 的 4 x 4 数值矩阵：请给出影像的仿射矩阵（与 nibabel 相同）。",
    ),
    "image-file-unknown": (
        "{file} is not a NIfTI, MetaImage, NRRD or DICOM image: give one of these, or a folder with one DICOM series.",
        "{file} 不是 NIfTI、MetaImage、NRRD 或 DICOM 影像：请给出其中一种，或仅含一个 DICOM 序列的文件夹。",
    ),
    "image-folder-series": (
        "{folder} contains {count} DICOM series of MR images instead of one: give the folder or file of one series.",
        "{folder} 含有 {count} 个 DICOM MR 序列，而不是一个：请给出仅含一个序列的文件夹或文件。",
    ),
    "sequence-not-used": (
        "{sequence} was not used for this prediction: choose one of {used}.",
        "本次预测未使用 {sequence}：请选择 {used} 之一。",
    ),
    "clinical-given-twice": (
        "Age or sex was given in addition to clinical data, which contain both: give one or the other.",
        "除临床数据外又给出了年龄或性别，而前者已包含两者：请只给出其中一种。",
    ),
    "clinical-kind-unknown": (
        "Clinical data of the type {kind} are not understood: give ClinicalData, for example from a table that "
        "read_clinical_table has read, or age and sex.",
        "无法识别类型为 {kind} 的临床数据：请给出 ClinicalData（例如由 read_clinical_table 读取的表中取得），或给出年龄和"
        "性别。",
    ),
    "sex-argument-unknown": (
        "The sex {sex} is not understood: give 'female', 'male', 1 (female), 0 (male), or None if it is unknown.",
        "无法识别性别 {sex}：请给出 'female'、'male'、1（女）、0（男），未知时为 None。",
    ),
    "model-kind-unknown": (
        "{kind} is not a model: give the name of a shipped model, the path of a weights file, or a Model.",
        "{kind} 不是模型：请给出内置模型名称、权重文件路径，或 Model。",
    ),
    "device-unknown": (
        "The device {device} is unknown: give auto, cpu, cuda, cuda:<number> or mps.",
        "未知的计算设备 {device}：请给出 auto、cpu、cuda、cuda:<编号> 或 mps。",
    ),
    "device-missing": (
        "PyTorch finds no device {device} on this computer: give auto or cpu, or install a build of PyTorch for it.",
        "PyTorch 在本机未找到设备 {device}：请给出 auto 或 cpu，或安装支持该设备的 PyTorch。",
    ),
    "engine-unknown": (
        "The engine {engine} in {variable} is unknown: use openvino, openvino-bf16 or torch.",
        "{variable} 中的推理引擎 {engine} 未知：请使用 openvino、openvino-bf16 或 torch。",
    ),
    "engine-no-bfloat16": (
        "This processor does not compute in bfloat16: use the engine openvino.",
        "本机处理器不支持 bfloat16 运算：请使用推理引擎 openvino。",
    ),
    "engine-wrong-bfloat16": (
        "The outputs of {name} in bfloat16 differ by {percent:.0f} % from single precision on this processor: use the "
        "engine openvino.",
        "在本机处理器上，{name} 的 bfloat16 输出与单精度相差 {percent:.0f} %：请使用推理引擎 openvino。",
    ),
    "engine-bfloat16-no-number": (
        "The outputs of {name} in bfloat16 are not numbers: use the engine openvino.",
        "{name} 的 bfloat16 输出不是有效数值：请使用推理引擎 openvino。",
    ),
    "model-synthetic": (
        "This model was trained on drawn heads and tumours. Its result is a demonstration and not valid for any person.",
        "该模型仅用程序绘制的头部和肿瘤训练，其结果只作演示，对任何真实患者均无效。",
    ),
    "engine-bfloat16": (
        "The networks were computed in bfloat16, with less precision than the published figures.",
        "网络以 bfloat16 计算，精度低于公布指标所用的精度。",
    ),
    "engine-needs-torch": (
        "The network '{name}' needs PyTorch here, which is not installed; type: pip install 'gliomark[train]'",
        "网络“{name}”在此需要 PyTorch，但本机未安装；请运行：pip install 'gliomark[train]'",
    ),
    "engine-cannot": (
        "{name} runs in PyTorch, more slowly: OpenVINO cannot convert it ({reason}).",
        "{name} 改用 PyTorch 运行，速度较慢：OpenVINO 无法转换（{reason}）。",
    ),
    "engine-differs": (
        "{name} runs in PyTorch, more slowly: after conversion for OpenVINO its output differs by {difference:.2g}, more "
        "than the accepted {tolerance:.2g}.",
        "{name} 改用 PyTorch 运行，速度较慢：转换为 OpenVINO 后其输出相差 {difference:.2g}，超过允许值 {tolerance:.2g}。",
    ),
    "evaluate-what": (
        "Give a table of predictions, or both --model and --cohort without options of a table.",
        "请给出预测表；或同时给出 --model 和 --cohort，且不带预测表的选项。",
    ),
    "cohort-lacks-sequences": (
        "The cohort {cohort} was not prepared for {sequences}, which the model needs: build it with these sequences.",
        "队列 {cohort} 未包含模型所需的序列 {sequences}：请用这些序列构建队列。",
    ),
    "cohort-other-sequences": (
        "The cohort {cohort} was prepared for {prepared}, the segmentation network needs {needed}, in this order: build the "
        "cohort with these sequences.",
        "队列 {cohort} 按 {prepared} 准备，而分割网络依次需要 {needed}：请按这些序列重新构建队列。",
    ),
    "markers-same-name": (
        "Two markers have the same name ({names}), and a model can hold only one of them: train a model for each.",
        "两个标志物同名（{names}），一个模型只能包含其中之一：请分别训练模型。",
    ),
    "cohort-none-to-evaluate": (
        "The cohort {cohort} has no patient to evaluate the model on: {count} were used to train it, and no other has "
        "the model's sequences.",
        "队列 {cohort} 中没有可用于评价该模型的患者：{count} 名用于训练，其余缺少模型所需的序列。",
    ),
    "evaluated-patients": (
        "{count} patients evaluated, {trained_on} left out because the model was trained on them, {without} because they "
        "lack one of its sequences",
        "已评价 {count} 名患者；另有 {trained_on} 名因曾用于训练、{without} 名因缺少所需序列而排除",
    ),
    "cohort-not-synthetic": (
        "{cohort} is not a synthetic cohort: write one with 'gliomark cohort phantom --as prepared'.",
        "{cohort} 不是合成队列：请用 'gliomark cohort phantom --as prepared' 生成。",
    ),
    "cohort-too-small": (
        "{cohort} has {patients} patients outside the test set, but {wanted} are to be trained on: write more patients "
        "or give smaller numbers.",
        "{cohort} 除测试集外只有 {patients} 名患者，而要求用 {wanted} 名训练：请生成更多患者或减少数量。",
    ),
    "patient-counts-not-increasing": (
        "The numbers of patients {counts} must increase, each once, such as 200,500,1000.",
        "患者数 {counts} 必须递增且不重复，例如 200,500,1000。",
    ),
    "cohort-other-preparation": (
        "The cohort {cohort} was prepared with other settings than the model's: build it with the model's settings, "
        "which 'gliomark models show --json' prints.",
        "队列 {cohort} 的预处理设置与模型不同：请按模型的设置构建（见 'gliomark models show --json'）。",
    ),
    "evaluated-dice": (
        "Dice: mean {mean:.3f}, median {median:.3f}, worst {worst:.3f} of {count} patients",
        "Dice：{count} 名患者均值 {mean:.3f}，中位数 {median:.3f}，最低 {worst:.3f}",
    ),
    "evaluated-marker": (
        "{marker}: AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}), {count} patients, {positive} positive",
        "{marker}：AUC {auc:.3f}（95% 置信区间 {low:.3f} 至 {high:.3f}），{count} 名患者，其中 {positive} 名阳性",
    ),
    "robustness-prepared": (
        "{folder} is a prepared cohort, whose images are already resampled and normalised: give the folder of the "
        "original images.",
        "{folder} 是已预处理的队列，其图像已重采样并归一化：请指定原始影像的文件夹。",
    ),
    "robustness-key": (
        "The model {model} was trained on patients whose ids were replaced ({example}, ...), so they cannot be found "
        "among the original images: give the key.csv of the training cohort by --training-key, or state by "
        "--trained-elsewhere that none of these patients was used for training.",
        "模型 {model} 训练患者的编号已被替换（如 {example}），无法在原始影像中识别：请用 --training-key 指定训练队列的 "
        "key.csv，或用 --trained-elsewhere 声明这些患者均未用于训练。",
    ),
    "robustness-none": (
        "{folder} has no patient to measure the robustness on ({reasons}): give patients with lesion masks on whom the "
        "model was not trained.",
        "{folder} 中没有可用于评价稳健性的患者（{reasons}）：请提供带病灶掩膜且未用于训练的患者。",
    ),
    "robustness-overall": (
        "{patients} patients: Dice {dice:.3f} on unchanged images; mean loss over all changes and strengths {loss:.3f}",
        "{patients} 名患者：原始影像 Dice {dice:.3f}；全部改变及强度的平均下降 {loss:.3f}",
    ),
    "robustness-worst": ("{name}: mean loss of Dice {loss:.3f}", "{name}：Dice 平均下降 {loss:.3f}"),
    "cusum-settings": (
        "The false alarm rate is {rate:g} within {horizon} patients; the rate must be between 0 and 1, and the number of "
        "patients and the odds ratio above 0 and 1.",
        "误报率设为每 {horizon} 名患者 {rate:g}；该值须介于 0 与 1 之间，患者数须大于 0，优势比须大于 1。",
    ),
    "calibration-unknown": (
        "The calibration method {method} is unknown: use one of {known}.",
        "未知的校准方法 {method}：请使用 {known} 之一。",
    ),
    "prevalence-range": (
        "The share of positive patients is {share:g}; it must be above 0 and below 1.",
        "阳性患者比例为 {share:g}；须大于 0 且小于 1。",
    ),
    "prevalence-of-which-marker": (
        "The model does not have exactly one marker ({known}), so the share of positive patients must name its marker, such "
        "as idh=0.3.",
        "该模型的标志物不止一个或没有（{known}），阳性患者比例须指明标志物，例如 idh=0.3。",
    ),
    "prevalence-of-unknown-marker": (
        "A share of positive patients is given for {name}, which is not a marker of the model: name one of {known}.",
        "给定了 {name} 的阳性患者比例，但它不是该模型的标志物：请改为 {known} 之一。",
    ),
    "prevalence-without-calibration": (
        "The probability of {name} cannot be corrected for another share of positive patients, because the weights file "
        "has no patient-level calibration: leave the share out, or train the marker again.",
        "无法按其他阳性患者比例校正 {name} 的概率，因为权重文件没有患者级校准：请去掉该比例，或重新训练该标志物。",
    ),
    "prevalence-not-understood": (
        "{given} is not a share of positive patients: give a number such as 0.3, or a marker and a number such as idh=0.3.",
        "{given} 不是阳性患者比例：请给出数字（如 0.3），或标志物与数字（如 idh=0.3）。",
    ),
    "coverage-without-calibration": (
        "A coverage is given, but no marker of the model has a patient-level calibration: leave it out, or train the "
        "markers again.",
        "给定了覆盖率，但该模型没有任何标志物带有患者级校准：请去掉该选项，或重新训练标志物。",
    ),
    "sample-size-range": (
        "The sample size cannot be computed for {parameters} parameters and an R2 of {r2:.3g}: give at least one "
        "parameter, and an R2 above 0 and below its maximum.",
        "无法按 {parameters} 个参数和 R2 = {r2:.3g} 计算样本量：参数至少为 1 个，R2 须大于 0 且小于其最大值。",
    ),
    "study-card-auc": (
        "AUC {auc:.2f} (conservative 95 % interval {low:.2f} to {high:.2f}) of the same procedure on {patients} patients in five "
        "folds ({positives} positive), each never trained on, calibrated without the fold, lesions outlined by the network, "
        "mean of the slices around the largest lesion; the final model is refitted on all of them",
        "同一流程在 {patients} 例患者上五折交叉验证的 AUC 为 {auc:.2f}（保守 95% 置信区间 {low:.2f} 至 {high:.2f}；阳性 {positives} "
        "例），每例均由训练中未使用该患者的模型预测，校准不使用该折，病灶由网络勾画，取病灶最大处附近层面的均值；最终模型在全部患者上重新拟合",
    ),
    "study-card-dice": (
        "mean Dice {dice:.2f} (95 % interval {low:.2f} to {high:.2f}) of the same procedure on {patients} patients in five folds, "
        "each never trained on; the final network is refitted on all of them",
        "同一流程在 {patients} 例患者上五折交叉验证的平均 Dice 为 {dice:.2f}（95% 置信区间 {low:.2f} 至 {high:.2f}），每例均由训练"
        "中未使用该患者的网络勾画；最终网络在全部患者上重新拟合",
    ),
    "study-card-unmeasured": (
        "not measured: the patients in whom a lesion was outlined are of one class",
        "未测量：勾画出病灶的患者只有一类",
    ),
    "study-claim-unmeasured": (
        "{marker}: nothing may be claimed, and nothing was measured. With {patients} patients ({positives} positive), both "
        "classes do not remain when three folds are left out, as nested cross-validation needs.",
        "{marker}：不能作出任何结论，也未进行测量。仅有 {patients} 例患者（阳性 {positives} 例），去掉三折后无法同时保留两类患者，"
        "而嵌套交叉验证需要如此。",
    ),
    "study-claim-no-result": (
        "{marker}: nothing may be claimed. The patients in whom a lesion was outlined are of one class only.",
        "{marker}：不能作出任何结论。勾画出病灶的患者只有一类。",
    ),
    "study-claim-nothing": (
        "{marker}: nothing may be claimed. {patients} patients ({positives} positive) are too few: a calibration needs at least "
        "{fewest}, and {each} of either class, and even a regression with {few} candidate parameters needs {needed} (Riley et "
        "al. 2020). The numbers below describe these patients only; they may help to plan a larger study.",
        "{marker}：不能作出任何结论。{patients} 例患者（阳性 {positives} 例）过少：校准至少需要 {fewest} 例，且每类至少 {each} 例；"
        "含 {few} 个候选参数的回归模型也需要 {needed} 例（Riley 等，2020）。以下数值仅描述这些患者，可用于规划更大的研究。",
    ),
    "study-claim-chance": (
        "{marker}: nothing may be claimed. The 95 % interval of the AUC, {low:.2f} to {high:.2f}, includes 0.5: the model was "
        "not shown to be better than chance.",
        "{marker}：不能作出任何结论。AUC 的 95% 置信区间为 {low:.2f} 至 {high:.2f}，包含 0.5：未能证明该模型优于随机。",
    ),
    "study-claim-permuted": (
        "{marker}: nothing may be claimed. With labels permuted among the patients, the mean AUC within folds of {count} "
        "permutations is {auc:.2f} (99 % interval {low:.2f} to {high:.2f}) instead of 0.50. Repeat the study with more "
        "permutations; if the mean stays above 0.50, labels of test patients reach the model: please report it.",
        "{marker}：不能作出任何结论。将标签在患者间随机置换 {count} 次，折内平均 AUC 为 {auc:.2f}（99% 置信区间 {low:.2f} 至 {high:.2f}），"
        "而非 0.50。请增加置换次数后重新运行；若均值仍高于 0.50，则测试患者的标签影响了模型，请报告此问题。",
    ),
    "study-claim-permuted-undefined": (
        "{marker}: nothing may be claimed. The {count} studies with permuted labels give no mean AUC within folds with an "
        "interval. Repeat the study with more permutations.",
        "{marker}：不能作出任何结论。{count} 次随机置换标签的研究未能给出折内平均 AUC 及其置信区间。请增加置换次数后重新运行。",
    ),
    "study-few-permutations": (
        "{count} permutations give no interval; choose 0 or at least {least}.",
        "{count} 次置换无法给出置信区间；请选择 0 或至少 {least}。",
    ),
    "study-claim-ranking": (
        "{marker}: it may be claimed that the images of such patients carry information on the marker (AUC {auc:.2f}, 95 % "
        "interval {low:.2f} to {high:.2f}, out of fold). It may not be claimed that the probability of a single patient is "
        "reliable: {patients} patients are fewer than the {needed_few} that a regression with {few} candidate parameters needs "
        "(one with {many}: {needed_many}; Riley et al. 2020), and a network needs more.",
        "{marker}：可以认为此类患者的影像含有该标志物的信息（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}，折外预测）。但不能"
        "认为单个患者的概率可靠：{patients} 例患者少于含 {few} 个候选参数的回归模型所需的 {needed_few} 例（含 {many} 个参数的需要 "
        "{needed_many} 例；Riley 等，2020），而神经网络需要更多。",
    ),
    "study-claim-internal": (
        "{marker}: it may be claimed that the procedure ranks and calibrates patients of this cohort as stated below (AUC "
        "{auc:.2f}, 95 % interval {low:.2f} to {high:.2f}, out of fold). {patients} patients are enough for a regression with "
        "{few} candidate parameters ({needed_few}; with {many}: {needed_many}; Riley et al. 2020); a network needs more.",
        "{marker}：可以认为该方法对本队列患者的排序与校准如下文所述（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}，折外预测）。"
        "{patients} 例患者足以建立含 {few} 个候选参数的回归模型（需要 {needed_few} 例；含 {many} 个参数的需要 {needed_many} 例；"
        "Riley 等，2020）；神经网络需要更多。",
    ),
    "study-claim-elsewhere": (
        "It may not be claimed that the model works in other hospitals or on other scanners: all patients are of this cohort. "
        "That takes an external cohort with at least {count} patients of either class.",
        "不能认为该模型适用于其他医院或其他扫描仪：所有患者均来自本队列。这需要外部队列，且两类患者各至少 {count} 例。",
    ),
    "study-claim-baseline": (
        "It may not be claimed that the images add to {baseline}: the difference of the AUCs is {difference:.2f} (95 % interval "
        "{low:.2f} to {high:.2f}).",
        "不能认为影像在{baseline}之外提供了更多信息：两个 AUC 之差为 {difference:.2f}（95% 置信区间 {low:.2f} 至 {high:.2f}）。",
    ),
    "study-choices": (
        "A study needs at least one marker and one recipe, each given once; given: {names}.",
        "一项研究至少需要一个标志物和一个训练方案，且每个只给出一次；现给出：{names}。",
    ),
    "study-fold-too-few": (
        "{marker}: without fold {fold}, too few patients with a drawn lesion remain for the inner folds; draw more lesions, "
        "or add patients.",
        "{marker}：去掉第 {fold} 折后，已勾画病灶的患者过少，无法进行内层交叉验证；请勾画更多病灶，或增加患者。",
    ),
    "study-leak": (
        "{count} pairs of patients in different folds are probably one person: {pairs}. Keep one id of each person "
        "(reject the others in qc.csv); if they are known to be different persons, add --different-persons {option}.",
        "不同折中有 {count} 对患者很可能是同一人：{pairs}。每人请只保留一个编号（其余在 qc.csv 中剔除）；若确知为不同的"
        "人，请加上 --different-persons {option}。",
    ),
    "study-pair-same-image": (
        "{first} and {second} share a nearly identical image",
        "{first} 与 {second} 有几乎完全相同的图像",
    ),
    "study-pair-same-scan": (
        "{first} and {second} hold different slices of what appears to be one scan",
        "{first} 与 {second} 似乎是同一次扫描的不同层面",
    ),
    "study-plan-step": (
        "{name}: {count} trainings, about {hours:.1f} h",
        "{name}：{count} 次训练，约 {hours:.1f} 小时",
    ),
    "study-plan-total": (
        "In all {count} trainings, about {hours:.1f} h on this machine without --workers. Nothing was written.",
        "共 {count} 次训练，在本机上（不使用 --workers）约需 {hours:.1f} 小时。未写入任何文件。",
    ),
    "study-sample-size": (
        "{marker}: {patients} patients, {positives} positive. A regression with {few} candidate parameters needs at "
        "least {needed_few} patients, one with {many} at least {needed_many} (Riley et al. 2020); a network needs more.",
        "{marker}：{patients} 例患者，其中阳性 {positives} 例。含 {few} 个候选参数的回归模型至少需要 {needed_few} 例，含 "
        "{many} 个参数的至少需要 {needed_many} 例（Riley 等，2020）；神经网络需要更多。",
    ),
    "study-single-slices": (
        "{count} patients have fewer than three slices ({patients}): probably every slice has an id of its own, and "
        "slices of one person are in different folds; give all slices of an examination to one id.",
        "{count} 例患者的层面不足三层（{patients}）：很可能每个层面都有单独的编号，同一人的层面分在不同的折中；请将一次"
        "检查的所有层面归入同一编号。",
    ),
    "study-too-few": (
        "{marker}: {patients} patients, {positives} positive, are too few for nested cross-validation: both classes must "
        "remain when any three folds are left out. A regression with {few} candidate parameters needs at least "
        "{needed_few} patients, one with {many} at least {needed_many} (Riley et al. 2020).",
        "{marker}：{patients} 例患者（阳性 {positives} 例），不足以进行嵌套交叉验证：去掉任意三折后须仍有两类患者。含 "
        "{few} 个候选参数的回归模型至少需要 {needed_few} 例，含 {many} 个参数的至少需要 {needed_many} 例（Riley 等，2020）。",
    ),
    "site-too-few": (
        "{patients} patients with pathology ({positives} positive, {negatives} negative) are too few to adapt a model to a "
        "hospital: at least {fewest} are needed, and {each} of either class.",
        "有病理结果的患者仅 {patients} 名（阳性 {positives}，阴性 {negatives}），不足以使模型适应本院：至少需要 {fewest} 名，且每类不少于 {each} 名。",
    ),
    "site-shared-patient": (
        "{patient} is a patient of both tables: a hospital's patients must be others than those of the model's own.",
        "患者 {patient} 同时出现在两个表中：新医院的患者须与模型原有患者不同。",
    ),
    "site-none-large": (
        "No hospital in {file} has {fewest} patients with enough of either class: name the column of the hospital by "
        "--site.",
        "{file} 中没有一家医院达到 {fewest} 名患者且两类均足够：请用 --site 指明医院所在的列。",
    ),
    "site-repeated": (
        "{table} has two rows of one patient: keep one prediction of every patient.",
        "{table} 中有患者重复出现：每名患者只保留一条预测。",
    ),
    "site-no-column": (
        "{table} has no column {column} (columns: {columns}): name the column.",
        "{table} 中没有列 {column}（现有列：{columns}）：请指明列名。",
    ),
    "site-raw-unclear": (
        "{table} has {column} but not {raw}, so it is not clear whether its probabilities are calibrated already: give the "
        "column of the probabilities before calibration by --probability.",
        "{table} 有 {column} 列而无 {raw} 列，无法判断其概率是否已校准：请用 --probability 指明校准前概率所在的列。",
    ),
    "site-other-model": (
        "{table} contains predictions of another model (sha256 {sha256}...): give predictions of this model, or of the one "
        "from which it was recalibrated.",
        "{table} 含有其他模型（sha256 {sha256}…）的预测：请提供本模型或其校准前模型的预测。",
    ),
    "site-none": (
        "No patient of {table} has a pathology result for {marker} in {truth}: check the ids and the column of the marker.",
        "{table} 中没有患者在 {truth} 里有 {marker} 的病理结果：请检查编号及该标志物所在的列。",
    ),
    "site-only-trained-on": (
        "The model was trained on the patients of {table} who have a pathology result for {marker} in {truth}: give other "
        "patients.",
        "{table} 中在 {truth} 里有 {marker} 病理结果的患者均用于训练该模型：请提供其他患者。",
    ),
    "site-without-pathology": (
        "Patients left out without a pathology result for the marker: {count}, such as {example}.",
        "{count} 名患者没有该标志物的病理结果（如 {example}），未计入。",
    ),
    "site-without-probability": (
        "Patients left out without a probability: {count}, such as {example}.",
        "{count} 名患者没有概率（如 {example}），未计入。",
    ),
    "site-trained-on": (
        "Patients left out because the model was trained on them: {count}, such as {example}.",
        "{count} 名患者曾用于训练该模型（如 {example}），未计入。",
    ),
    "site-other-fusion": (
        "{table}, {patient}: the probability was made by the fusion rule '{fusion}', but calibration, threshold and limits are "
        "those of the rule 'near': predict again without --fusion.",
        "{table}，{patient}：概率由融合规则“{fusion}”得出，而校准、阈值与界限针对“near”规则：请不使用 --fusion 重新预测。",
    ),
    "site-pathology": (
        "{table}, {patient}: '{text}' in the column {column} is not understood; enter a number, or yes or no for a marker "
        "that is 0 or 1.",
        "{table}，{patient}：无法识别列 {column} 中的“{text}”；请填写数值，取值为 0 或 1 的标志物也可填写 yes 或 no。",
    ),
    "site-refitted-on-some": (
        "The model seems to have been refitted on {count} of these {patients} patients, who have the same level and score as "
        "patients of the refit: the results are better than on others.",
        "这 {patients} 名患者中有 {count} 名的结果和分数与重新校准所用的患者相同，可能是同一批患者：因此结果会优于该模型在其他患者上"
        "的表现。",
    ),
    "site-probability": (
        "{table}, {patient}: the probability is '{text}'; it must be a number from 0 to 1.",
        "{table}，{patient}：概率为“{text}”；须为 0 至 1 之间的数。",
    ),
    "site-date": (
        "{table}, {patient}: the date is '{text}'; write it as 2026-03-01.",
        "{table}，{patient}：日期为“{text}”；请写成 2026-03-01 的形式。",
    ),
    "site-one-level": (
        "All {patients} patients have the same level of {marker}: patients of both levels are needed to check a model.",
        "全部 {patients} 名患者的 {marker} 结果相同：检验模型需要两类患者。",
    ),
    "site-unknown-marker": (
        "The model {model} has no marker {marker}: name one of {markers}.",
        "模型 {model} 没有标志物 {marker}：请选择 {markers} 之一。",
    ),
    "marker-not-binary": (
        "Patient {patient}: the column {column} should be 0 or 1 but is {value}; for a number give the marker as "
        "'{column}>=threshold', and train a model for it.",
        "患者 {patient}：列 {column} 应为 0 或 1，但实际为 {value}；若为数值，请将标志物写为“{column}>=阈值”并为其训练模型。",
    ),
    "site-checked": (
        "{patients} patients with pathology, {positives} positive; 95 % intervals in parentheses",
        "{patients} 名患者有病理结果，其中 {positives} 名阳性；括号内为 95% 置信区间",
    ),
    "site-quantity": ("{name}: {value:.3f} ({low:.3f} to {high:.3f})", "{name}：{value:.3f}（{low:.3f} 至 {high:.3f}）"),
    "site-same-patients": (
        "The model was refitted on exactly these patients: the results are better than on others.",
        "模型正是用这些患者重新校准的：因此结果会优于该模型在其他患者上的表现。",
    ),
    "site-unnamed": (
        "Name the hospital and the person who refits the model: both are kept in the weights file.",
        "请注明医院及执行校准的人员：二者将保存在权重文件中。",
    ),
    "site-same-file": (
        "{path} is the model that is to be refitted: write the new weights to another file.",
        "{path} 即为待校准的模型：请将新权重写入其他文件。",
    ),
    "site-refitted": (
        "Calibration, threshold and limits refitted to {patients} patients of {site} ({positives} positive).",
        "已用 {site} 的 {patients} 名患者（阳性 {positives} 名）重新拟合校准、阈值与界限。",
    ),
    "site-straight-maps": (
        "{patients} patients support a calibration with at most two parameters; from 100 on, curved ones are tried too.",
        "{patients} 名患者只支持至多两个参数的校准；达到 100 名后才尝试曲线校准。",
    ),
    "site-all-maps": (
        "{patients} patients support every kind of calibration.",
        "{patients} 名患者足以支持各种校准方法。",
    ),
    "site-sensitivity": (
        "The threshold aims at a sensitivity of 0.9; with so few positive patients it may be {low:.2f} to {high:.2f}.",
        "阈值以敏感度 0.9 为目标；以目前的阳性患者数，实际灵敏度可能为 {low:.2f} 至 {high:.2f}。",
    ),
    "site-coverage": (
        "Limits from {count} patients with the level {level}: a coverage of {share:.2f} on average, for these limits between "
        "{low:.2f} and {high:.2f}.",
        "根据 {count} 名“{level}”患者确定的界限：平均覆盖率 {share:.2f}，本次界限可能为 {low:.2f} 至 {high:.2f}。",
    ),
    "site-no-dates": (
        "Monitoring needs the dates of the predictions: name their column by --date.",
        "监测需要预测的日期：请用 --date 指明日期所在的列。",
    ),
    "site-monitored": (
        "{patients} patients: {observed} positive, {expected:.1f} expected; alarm limit for a false alarm in {rate:.0%} of "
        "series of {horizon} patients",
        "{patients} 名患者：阳性 {observed} 名，预期 {expected:.1f} 名；报警界限对应每 {horizon} 名患者 {rate:.0%} 的误报率",
    ),
    "site-no-alarm": ("no alarm", "无报警"),
    "site-alarm-more": (
        "alarm at patient {number}, {date}: more positive patients than the probabilities state",
        "第 {number} 名患者（{date}）报警：阳性患者多于模型给出的概率",
    ),
    "site-alarm-fewer": (
        "alarm at patient {number}, {date}: fewer positive patients than the probabilities state",
        "第 {number} 名患者（{date}）报警：阳性患者少于模型给出的概率",
    ),
    "coverage-range": (
        "The coverage is {coverage:g}; it must be at least 0.5 and below 1.",
        "覆盖率为 {coverage:g}；须不小于 0.5 且小于 1。",
    ),
    # ---- progress ---------------------------------------------------------------------------------------
    "step-resume": ("looking for finished results", "正在查找已完成的结果"),
    "batch-start": ("{done} of {total} patients, starting the workers", "{total} 名患者中已完成 {done} 名，正在启动工作进程"),
    "batch-progress": (
        "{done} of {total} patients, {failed} failed, {rate:.1f} per minute, {left} left",
        "{total} 名患者中已完成 {done} 名，失败 {failed} 名，每分钟 {rate:.1f} 名，剩余 {left}",
    ),
    "step-model": ("loading the model", "正在加载模型"),
    "step-read": ("reading the images", "正在读取影像"),
    "step-of-patient": ("{patient}: {step}", "{patient}：{step}"),
    "step-explain": ("explaining {title}", "正在解释{title}"),
    "step-align": ("registering the sequences", "正在配准各序列"),
    "step-strip": ("extracting the brain", "正在提取脑组织"),
    "step-slice": ("extracting the slices", "正在提取层面"),
    "step-locate": ("locating the lesion", "正在确定病灶位置"),
    "step-outline": ("outlining the lesion", "正在勾画病灶"),
    "step-marker": ("predicting {title}", "正在预测{title}"),
    "step-write": ("writing the results", "正在写入结果"),
    # ---- weights and models -----------------------------------------------------------------------------
    "weights-card-unknown": (
        "{path}: the weights file contains an entry that is invalid or unknown to this version of gliomark "
        "({field}: {reason}); update gliomark, or retrain the model.",
        "{path}：权重文件中有当前 gliomark 版本无法识别或无效的内容（{field}：{reason}）；请更新 gliomark，或重新训"
        "练模型。",
    ),
    "marker-too-few-patients": (
        "{marker}: {patients} patients with a label and all sequences are too few for training; add patients to the "
        "cohort.",
        "{marker}：有标签且序列齐全的患者仅 {patients} 例，不足以训练；请在队列中增加患者。",
    ),
    "marker-without-masks": (
        "{marker}: {drawn} of {labelled} labelled patients have a lesion mask, and they are of one class only; draw the "
        "lesions of patients of both classes.",
        "{marker}：{labelled} 例有标签的患者中仅 {drawn} 例有病灶掩膜，且只有一类；请勾画两类患者的病灶。",
    ),
    "marker-no-lesions": (
        "Too few patients have a lesion mask for training ({fitted} for fitting, {stopping} for early stopping): "
        "annotate more patients, or provide more labels.",
        "有病灶掩膜、可供训练的患者过少（拟合 {fitted} 例，早停 {stopping} 例）：请勾画更多患者，或补充更多标签。",
    ),
    "training-batch-not-divisible": (
        "A batch of {batch} slices cannot be split evenly over --devices {devices} times --nodes {nodes} processes; "
        "choose numbers whose product divides {batch}.",
        "每批 {batch} 个层面无法平均分给 --devices {devices} 乘以 --nodes {nodes} 个进程；请选择乘积能整除 {batch} 的数值。",
    ),
    "training-too-few-gpus": (
        "--devices {devices}: this computer has {found} GPUs; choose at most {found}.",
        "--devices {devices}：本机有 {found} 个 GPU；最多可选 {found}。",
    ),
    "training-tasks-of-srun": (
        "srun started {tasks} tasks for --nodes {nodes}; start one per node (srun --ntasks-per-node=1), which starts "
        "{devices} processes itself.",
        "srun 为 --nodes {nodes} 启动了 {tasks} 个任务；请每个节点只启动一个任务（srun --ntasks-per-node=1），该任务会自行启动 "
        "{devices} 个进程。",
    ),
    "training-no-main-node": (
        "Training on several nodes needs SLURM (srun --ntasks-per-node=1), or MASTER_ADDR, MASTER_PORT and NODE_RANK in "
        "the environment of the command on every node.",
        "多节点训练需要使用 SLURM（srun --ntasks-per-node=1），或在每个节点上为该命令设置环境变量 MASTER_ADDR、MASTER_PORT 和 "
        "NODE_RANK。",
    ),
    "training-few-validation-slices": (
        "{slices} validation slices cannot be split over {count} processes; use at most {slices} processes.",
        "{slices} 个验证层面无法分给 {count} 个进程；进程数最多为 {slices}。",
    ),
    "training-process-failed": (
        "Process {number} of {count} of the training ended: {reason}. The others were stopped; remove the cause and "
        "give the same command again, and training continues from its last epoch.",
        "训练的第 {number} 个进程（共 {count} 个）已终止：{reason}。其余进程已停止；请排除原因后重新运行同一命令，训练将从上一轮"
        "继续。",
    ),
    "training-nothing-to-split": (
        "--devices and --nodes split the batches of a training; this network has frozen features and is fitted without "
        "batches: leave them out.",
        "--devices 和 --nodes 用于拆分训练批次；该网络的特征是固定的，拟合时不分批：请去掉这两个选项。",
    ),
    "training-devices-and-workers": (
        "--devices and --nodes train one network on several devices, --workers and --scheduler several networks at the "
        "same time; give only one of the two.",
        "--devices 和 --nodes 在多个设备上训练一个网络，--workers 和 --scheduler 同时训练多个网络；两者只能选其一。",
    ),
    "work-of-other-patients": (
        "{folder} contains a training run on other patients; delete the folder to start again, or choose another "
        "output folder.",
        "{folder} 中保存的是另一批患者的训练进度；请删除该文件夹后重新训练，或更换输出文件夹。",
    ),
    "work-of-other-settings": (
        "{folder} contains a training run with other settings; delete the folder to start again, or choose another "
        "output folder.",
        "{folder} 中保存的是另一套设置下的训练进度；请删除该文件夹后重新训练，或更换输出文件夹。",
    ),
    "work-of-other-data": (
        "{folder} contains a training run on other images, masks or labels of these patients; delete the folder to "
        "start again, or choose another output folder.",
        "{folder} 中保存的训练进度所用的影像、掩膜或标签与现在不同；请删除该文件夹后重新训练，或更换输出文件夹。",
    ),
    "work-of-other-unknown": (
        "{folder} contains a training run without a record of its data and settings; delete the folder to start "
        "again, or choose another output folder.",
        "{folder} 中的训练进度未记录其数据与设置；请删除该文件夹后重新训练，或更换输出文件夹。",
    ),
    "intended-use": (
        "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR",
        "仅供演示与科研；不是医疗器械；训练数据为 WHO 2、3 级胶质瘤的 T1C 与 FLAIR 影像",
    ),
    "licence": (
        "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; images TCIA TCGA-LGG, CC BY "
        "3.0",
        "CC BY-NC-SA 4.0（非商业、相同方式共享），承自训练掩膜；影像来自 TCIA TCGA-LGG，CC BY 3.0",
    ),
    "training-cohort-synthetic": (
        "{patients} synthetic patients drawn by gliomark",
        "{patients} 例由 gliomark 绘制的合成患者",
    ),
    "cohort-synthetic-test-set": ("the synthetic test set", "合成测试集"),
    "outline-performance": (
        "mean Dice {dice} (95 % interval {low} to {high}), median {median}, of the same recipe on {patients} TCGA-LGG "
        "patients in five folds, each never trained on; these weights are trained on all of them",
        "同一训练方案在 {patients} 例 TCGA-LGG 患者上五折交叉验证（每例均由训练中未使用该患者的模型勾画）：平均 Dice {dice}（95% 置信区间 {low} "
        "至 {high}），中位数 {median}；本权重用全部患者训练",
    ),
    "outline-performance-t2": (
        "mean Dice {dice} (95 % interval {low} to {high}), median {median}, worst {worst}, of the same recipe on the real "
        "T2 of {patients} TCGA-LGG patients with BraTS 2021 masks, each never trained on; these weights are trained on "
        "synthetic T2 and on the real T2 of {seen} of them",
        "同一训练方案在 {patients} 例有 BraTS 2021 掩膜的 TCGA-LGG 患者的真实 T2 上验证（每例均由训练中未使用该患者的模型勾画）：平均 Dice {dice}（95% "
        "置信区间 {low} 至 {high}），中位数 {median}，最低 {worst}；本权重用合成 T2 和其中 {seen} 例的真实 T2 训练",
    ),
    "outline-performance-synthetic": (
        "mean Dice {dice} (95 % interval {low} to {high}) on {patients} synthetic patients who were not trained on",
        "在 {patients} 例未参与训练的合成患者上：平均 Dice {dice}（95% 置信区间 {low} 至 {high}）",
    ),
    "outline-performance-unknown": ("not measured", "尚未测量"),
    "intended-use-synthetic": (
        "demonstration of the whole method only; trained on drawn heads and tumours, whose markers follow an invented "
        "rule; not valid for any person",
        "仅用于演示完整流程；训练数据为程序绘制的头部与肿瘤，其标志物按人为设定的规则生成；对任何真实患者均无效",
    ),
    "licence-synthetic": (
        "Apache-2.0; trained on synthetic images drawn by gliomark",
        "Apache-2.0；训练数据为 gliomark 绘制的合成影像",
    ),
    "licence-not-stated": ("not stated", "未注明"),
    "facts-title": ("Model facts", "模型说明"),
    "facts-section-outline": ("Outline", "病灶勾画"),
    "facts-section-data": ("Training data", "训练数据"),
    "facts-section-use": ("Use", "用途"),
    "facts-section-caution": ("Beware", "注意"),
    "facts-section-file": ("File", "文件"),
    "facts-outline": (
        "Outlines the lesion on {sequences} ({network}); {performance}.",
        "在 {sequences} 上勾画病灶（{network}）；{performance}。",
    ),
    "facts-outline-second": (
        "Where {missing} is missing it outlines on {sequences} ({network}); {performance}. No marker is predicted then.",
        "缺少 {missing} 时在 {sequences} 上勾画（{network}）；{performance}。此时不预测标志物。",
    ),
    "facts-stand-in": (
        "{shown} may replace {wanted}, with a warning and without a marker.",
        "{shown} 可代替 {wanted}，会给出警告，且不预测标志物。",
    ),
    "facts-marker": (
        "Predicts {positive} or {negative} ({label}) from the outlined slices ({network}), age and sex.",
        "由勾画的层面（{network}）、年龄和性别预测{positive}或{negative}（{label}）。",
    ),
    "facts-marker-without-age": (
        "Predicts {positive} or {negative} ({label}) from the outlined slices ({network}).",
        "由勾画的层面（{network}）预测{positive}或{negative}（{label}）。",
    ),
    "marker-refitted": (
        "Refitted at {site} by {person} on {date}, to {patients} patients with pathology ({positives} positive).",
        "{date} 由 {person} 在 {site} 按 {patients} 例有病理结果的患者（阳性 {positives} 例）重新校准。",
    ),
    "facts-known-range": (
        "Images unlike those of the {count} training patients with whom they are compared get no marker.",
        "影像会与 {count} 例训练患者比较；与他们不相像的，不预测标志物。",
    ),
    "facts-no-known-range": (
        "It does not check whether images are like those it was trained on: it also computes a result where it should not.",
        "本模型不检查影像是否与训练影像相像：不该给出结果时也会给出。",
    ),
    "facts-local-check": (
        "Before use at another hospital, check it on at least 30 local patients with pathology (gliomark site check).",
        "在其他医院使用前，请先用至少 30 例本院有病理结果的患者检验（gliomark site check）。",
    ),
    "facts-other-patients": (
        "How well it does on other patients, scanners and tumours than those named above has not been measured.",
        "对上述以外的患者、设备和肿瘤，其表现尚未测量。",
    ),
    "intended-use-research": ("research use only, not a medical device", "仅供科研使用，不是医疗器械"),
    "training-cohort": (
        "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019: {patients} patients for the outline, at least "
        "{fewest} per marker",
        "TCGA-LGG，采用 Buda 等（2019）的 FLAIR 异常区掩膜：病灶勾画用 {patients} 例患者，每个标志物至少 {fewest} 例",
    ),
    "weights-absent": (
        "{path}: the weights file does not exist; specify a file or the name of a built-in model.",
        "{path}：权重文件不存在；请指定文件路径或内置模型的名称。",
    ),
    "model-mistyped": (
        "'{name}' is neither a built-in model nor a file. Did you mean '{closest}'?",
        "“{name}”既不是内置模型，也不是文件。是否应为“{closest}”？",
    ),
    "weights-not-opened": (
        "{path}: the weights file cannot be opened ({reason}); check the path and its permissions.",
        "{path}：无法打开权重文件（{reason}）；请检查路径与权限。",
    ),
    "weights-cut": (
        "{path}: not a weights file, or damaged or truncated ({size} bytes); download it again.",
        "{path}：不是权重文件，或文件已损坏、不完整（共 {size} 字节）；请重新获取。",
    ),
    "weights-too-large": (
        "{path}: not a gliomark weights file, as it is too large ({size} bytes, including a header of {header} "
        "bytes); train or download one.",
        "{path}：不是 gliomark 的权重文件，其大小超出可能范围（共 {size} 字节，其中文件头 {header} 字节）；请训练或"
        "重新获取。",
    ),
    "weights-damaged": (
        "{path}: the weights file is damaged or truncated ({reason}); download it again.",
        "{path}：权重文件已损坏或不完整（{reason}）；请重新获取。",
    ),
    "weights-other-version": (
        "{path}: not a gliomark weights file of version {version}; train or download one.",
        "{path}：不是版本 {version} 的 gliomark 权重文件；请训练或重新获取。",
    ),
    "weights-altered": (
        "{path}: the weights file was modified after it was written; download it again.",
        "{path}：权重文件在写入后被改动；请重新获取。",
    ),
    "weights-changed": (
        "{path}: the weights file has changed since the server checked it at its start; restore it, or restart the "
        "server.",
        "{path}：权重文件在服务器启动核对后已改变；请恢复原文件，或重新启动服务器。",
    ),
    "weights-card-unreadable": (
        "{path}: the model card in the weights file cannot be read ({reason}); download it again, or retrain the "
        "model.",
        "{path}：无法读取权重文件中的模型说明（model card，{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-card-incomplete": (
        "{path}: the model card in the weights file lacks {fields}; retrain the model.",
        "{path}：权重文件中的模型说明（model card）缺少 {fields}；请重新训练模型。",
    ),
    "weights-tensor-kind": (
        "{path}: the weights file contains {names} as {kind}, which gliomark does not write, or as an empty tensor; "
        "download it again.",
        "{path}：权重文件中的 {names} 为 {kind} 类型或为空，并非由 gliomark 写入；请重新获取。",
    ),
    "weights-tensor-missing": (
        "{path}: the weights file lacks weights that its network needs ({names}); download it again, or retrain the "
        "model.",
        "{path}：权重文件缺少其网络所需的权重（{names}）；请重新获取，或重新训练模型。",
    ),
    "weights-tensor-strange": (
        "{path}: the weights file contains weights that no part of its model uses ({names}); download it again, or "
        "retrain the model.",
        "{path}：权重文件中有模型各部分都用不到的权重（{names}）；请重新获取，或重新训练模型。",
    ),
    "weights-tensor-other": (
        "{path}: the weights {name} are {found} but the network needs {wanted}; download the file again, or retrain "
        "the model.",
        "{path}：权重 {name} 为 {found}，而网络需要 {wanted}；请重新获取该文件，或重新训练模型。",
    ),
    "weights-not-numbers": (
        "{path}: the weights file contains values that a network cannot use, such as infinity or a negative "
        "variance ({names}); retrain the model.",
        "{path}：权重文件中有网络无法使用的数值，例如无穷大、非数值或负方差（{names}）；请重新训练模型。",
    ),
    "export-differs": (
        "The exported network '{name}' gives other results than the weights file (by up to {difference:.2g}); nothing was "
        "written. Try another format, or another version of PyTorch.",
        "导出的网络“{name}”与权重文件的结果不一致（最大相差 {difference:.2g}），未写出任何文件。请改用其他格式或其他版本的 PyTorch。",
    ),
    "export-needs-onnx": (
        "The export to ONNX needs the package onnx; type: pip install onnx",
        "导出为 ONNX 需要 onnx 软件包；请运行：pip install onnx",
    ),
    "export-not-empty": (
        "{folder} is not empty: specify a new folder for the exported model.",
        "{folder} 不是空文件夹：请为导出的模型指定新文件夹。",
    ),
    "weights-network": (
        "{path}: the part '{part}' of the weights file describes a network that cannot be built or run ({reason}); "
        "download it again, or retrain the model.",
        "{path}：权重文件中“{part}”部分所描述的网络无法建立或运行（{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-trees": (
        "{path}: the decision trees of '{part}' in the weights file are damaged or belong to another model "
        "({reason}); download it again, or retrain the model.",
        "{path}：权重文件中“{part}”的决策树已损坏或属于其他模型（{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-no-answer": (
        "{path}: the part '{part}' of the weights file produces no valid output ({reason}); retrain the model.",
        "{path}：权重文件的“{part}”部分得不出有效结果（{reason}）；请重新训练模型。",
    ),
    "weights-diverged": (
        "{path} was not written: the trained weights contain values that are not finite numbers ({names}), so the "
        "training diverged; check the images of the cohort, and train again with other settings or in another "
        "folder.",
        "未写入 {path}：训练所得权重含有非有限数值（{names}），训练已发散；请检查队列影像，更换设置或输出文件夹后重"
        "新训练。",
    ),
    "network-unknown": (
        "There is no network named '{name}'; update gliomark, or choose another one.",
        "没有名为“{name}”的网络；请更新 gliomark，或选择其他网络。",
    ),
    "network-of-before": (
        "This MIG-Net was trained by gliomark 0.1, whose MIG-Net had different layers; retrain it with this version.",
        "该 MIG-Net 由 gliomark 0.1 训练，其网络层与现在不同；请用当前版本重新训练。",
    ),
    "second-network-preparation": (
        "{path} prepares images in another way than {other}, so its network cannot be added; train it on a cohort "
        "built with the same settings.",
        "{path} 的影像预处理方式与 {other} 不同，无法加入其网络；请用相同设置构建的队列训练。",
    ),
    "outline-no-number": (
        "The segmentation network produced values that are not numbers, so no result is available for this patient; "
        "use other weights.",
        "病灶勾画网络的输出不是有效数值，无法得出该患者的结果；请改用其他权重。",
    ),
    "marker-no-number": (
        "The marker network produced values that are not numbers, so no result is available for this patient; use "
        "other weights.",
        "标志物网络的输出不是有效数值，无法得出该患者的结果；请改用其他权重。",
    ),
    "marker-name-unusable": (
        "The marker name '{name}' cannot be used in file names; rename the column, without / and without dots at "
        "either end.",
        "标志物名称“{name}”不能用作文件名；请重命名该列，不要含 /，首尾不要有点号或空格。",
    ),
    "signature-no-key": (
        "Signed weights are required but no key is trusted; specify the signers' public keys with --trusted-key.",
        "已要求权重必须签名，但未指定受信任的公钥；请用 --trusted-key 给出签名者的公钥文件。",
    ),
    "signature-missing": (
        "{path}: the weights file is not signed ({signature} does not exist next to it); obtain its signature, or sign "
        "it with 'gliomark models sign'.",
        "{path}：权重文件没有签名（同一位置没有 {signature}）；请获取其签名，或用 gliomark models sign 签名。",
    ),
    "signature-unreadable": (
        "{path} is not a readable signature ({reason}); download it again, or sign the weights file again.",
        "{path} 不是可读取的签名（{reason}）；请重新获取，或重新为权重文件签名。",
    ),
    "signature-unknown-key": (
        "{path}: the weights file is signed with the key {key}, which is not trusted; add its public key with "
        "--trusted-key if you know its owner.",
        "{path}：权重文件由密钥 {key} 签名，该密钥未受信任；若确知其所有者，请用 --trusted-key 添加其公钥。",
    ),
    "signature-wrong": (
        "{path}: the signature by the key {key} does not match the file, which was modified or is a different one; "
        "download both again.",
        "{path}：密钥 {key} 的签名与该文件不符，文件被改动过或不是同一文件；请重新获取文件及其签名。",
    ),
    "key-unreadable": (
        "{path} cannot be used as a key ({reason}); specify a key made by 'gliomark models keygen' or minisign, and "
        "its password if it has one.",
        "{path} 不能用作密钥（{reason}）；请给出由 gliomark models keygen 或 minisign 生成的密钥，如有密码请正确输入。",
    ),
    "key-exists": (
        "{path} already exists, and keys are never overwritten; choose another name.",
        "{path} 已存在，密钥不会被覆盖；请换一个名称。",
    ),
    # ---- results ----------------------------------------------------------------------------------------
    "dicom-out-bad-uid": (
        "{file} has the {keyword} '{value}', which is not a valid UID, so DICOM results cannot refer to it; export "
        "the series in {folder} again, or omit --dicom-out and --rtstruct.",
        "{file} 的 {keyword} 为“{value}”，不是有效的 UID，DICOM 结果无法引用；请重新导出 {folder} 中的序列，或不使用"
        " --dicom-out 和 --rtstruct。",
    ),
    "not-written": (
        "Could not write '{path}' ({reason}); choose an output folder that can be written to.",
        "无法写入 {path}（{reason}）；请选择可写的输出文件夹。",
    ),
    "not-a-result": (
        "'{folder}' contains '{file}', which is not a gliomark result; choose another output folder.",
        "“{folder}”中的“{file}”不是 gliomark 的结果；请另选输出文件夹。",
    ),
    "id-empty": (
        "The patient id is empty; give the patient an id, which is used as the name of the result folder.",
        "患者编号为空；请提供编号，结果文件夹以其命名。",
    ),
    "not-dicom": (
        "The images of patient {patient} are not DICOM, so DICOM results have no study to belong to; omit "
        "--dicom-out and --rtstruct, or provide the DICOM files.",
        "患者 {patient} 的影像不是 DICOM，DICOM 结果无所属检查；请去掉 --dicom-out 和 --rtstruct，或提供 DICOM 文件。",
    ),
    "structure-set-empty": (
        "No structure set (RTSTRUCT) was written, because no lesion was outlined on the images to which it would refer.",
        "未写出结构集（RTSTRUCT），因为其应引用的影像上没有勾画病灶。",
    ),
    "dicom-segmentation-empty": (
        "No DICOM segmentation was written, because the outlined lesion lies between the images to which it would refer.",
        "未写出 DICOM 分割，因为勾画的病灶位于其应引用的影像之间。",
    ),
    "dicom-bad-patient-id": (
        "{file} has a patient id that DICOM does not allow (more than 64 characters, or a control character), so an "
        "archive could not assign the results to the patient; correct the id in the images, or omit --dicom-out and "
        "--rtstruct.",
        "{file} 的患者编号不符合 DICOM 规定（超过 64 个字符或含控制字符），归档系统无法将结果归入该患者；请更正影像中的"
        "编号，或去掉 --dicom-out 和 --rtstruct。",
    ),
    "dicom-gone": (
        "{file} can no longer be read; DICOM results need the original images.",
        "{file} 已无法读取；DICOM 结果需要原始影像。",
    ),
    "dicom-incomplete": (
        "{file} lacks {field}, to which DICOM results refer; export the series in {folder} again, or omit "
        "--dicom-out and --rtstruct.",
        "{file} 缺少 DICOM 结果需要引用的 {field}；请重新导出 {folder} 中的序列，或去掉 --dicom-out 和 --rtstruct。",
    ),
    "dicom-spread": (
        "The series in {folder} is split into {count} multi-frame files, to which DICOM results cannot refer; omit "
        "--dicom-out and --rtstruct.",
        "{folder} 中的序列分布在 {count} 个多帧文件中，DICOM 结果无法引用；请去掉 --dicom-out 和 --rtstruct。",
    ),
    # ---- fetching from a PACS ---------------------------------------------------------------------------
    "commitment-all": (
        "{pacs} committed to keep all objects: {kept}.",
        "{pacs} 承诺保存全部对象：{kept}。",
    ),
    "commitment-some": (
        "{pacs} committed to keep {kept}, but not {missing}; look for these objects in the archive, and send them again.",
        "{pacs} 承诺保存 {kept}，但未承诺保存 {missing}；请在归档系统中查找这些对象，并重新发送。",
    ),
    "commitment-none": (
        "{pacs} committed to keep none of the objects: {missing}; look for them in the archive, and send them again.",
        "{pacs} 未承诺保存任何对象：{missing}；请在归档系统中查找这些对象，并重新发送。",
    ),
    "commitment-not-offered": (
        "{pacs} does not offer storage commitment.",
        "{pacs} 不提供存储承诺（Storage Commitment）。",
    ),
    "commitment-no-association": (
        "{pacs} could not be asked for storage commitment, because it accepted no association.",
        "无法向 {pacs} 请求存储承诺：对方未接受连接。",
    ),
    "commitment-refused": (
        "{pacs} refused the request for storage commitment (status {status}).",
        "{pacs} 拒绝了存储承诺请求（状态 {status}）。",
    ),
    "commitment-no-answer": (
        "{pacs} did not report within {seconds} s whether it keeps the objects; it must know the address of this DICOM "
        "node, and be among those named with --dicom-peer.",
        "{pacs} 在 {seconds} 秒内未报告是否保存对象；对方须登记本 DICOM 节点的地址，并须列入 --dicom-peer。",
    ),
    "pacs-query-empty": (
        "It is not stated which study to fetch; give --accession, --patient-id or --study-uid.",
        "未说明要获取哪个检查；请给出 --accession、--patient-id 或 --study-uid。",
    ),
    "pacs-query-wildcard": (
        "'{value}' contains *, ?, a backslash or a control character, with which other patients would be found; "
        "write the number or id in full.",
        "“{value}”含有 *、?、反斜杠或控制字符，会查到其他患者；请写出完整的号码。",
    ),
    "pacs-query-uid": (
        "'{value}' is not a StudyInstanceUID: it has only digits and dots and at most 64 characters.",
        "“{value}”不是 StudyInstanceUID：应只含数字和点，最多 64 个字符。",
    ),
    "pacs-several-studies": (
        "{count} studies fit, so nothing was fetched; choose one with --study-uid.",
        "有 {count} 个检查符合，未获取任何内容；请用 --study-uid 指定其中一个。",
    ),
    "pacs-nothing-found": (
        "{pacs} has no study that fits; check the number and whether this PACS archives the study.",
        "{pacs} 中没有符合的检查；请核对号码，并确认该检查存于此 PACS。",
    ),
    "pacs-no-mr-images": (
        "The study in {pacs} has {count} series, but none with MR images that gliomark reads; choose another study.",
        "{pacs} 中该检查有 {count} 个序列，但没有 gliomark 可读取的 MR 图像；请选择其他检查。",
    ),
    "pacs-folder-taken": (
        "{folder} exists and is not an empty folder; choose another --out, so that examinations are not mixed.",
        "{folder} 已存在且不是空文件夹；请另选 --out，以免混入其他检查。",
    ),
    "pacs-list-cut": (
        "{pacs} states that it has more answers than the {count} it sent, so that images could be missing; ask its "
        "administrator to raise the limit of a search, or fetch by DICOM instead of DICOMweb.",
        "{pacs} 表示结果多于其返回的 {count} 条，可能缺少影像；请联系管理员提高查询上限，或改用 DICOM 而非 DICOMweb 获取。",
    ),
    "pacs-incomplete": (
        "{pacs} sent {received} of {announced} images of series {series}, so nothing was kept; try again, and if it "
        "repeats, ask the administrator of the PACS.",
        "{pacs} 的序列 {series} 共 {announced} 幅图像，仅收到 {received} 幅，未保留任何内容；请重试，若再次出现请联系 "
        "PACS 管理员。",
    ),
    "pacs-series-not-listed": (
        "{pacs} has series {series} in this study, but lists no images of it, so nothing was fetched; try again, and if "
        "it repeats, ask the administrator of the PACS.",
        "{pacs} 的该检查含有序列 {series}，但未列出其图像，因此未获取任何内容；请重试，若再次出现请联系 PACS 管理员。",
    ),
    "pacs-other-patient": (
        "{pacs} lists the study under patient id {listed}, but its images state {found}, so nothing was kept; ask the "
        "administrator of the PACS which id is right.",
        "{pacs} 将该检查列于患者编号 {listed} 之下，但图像中的编号为 {found}，因此未保留任何内容；请向 PACS 管理员核实哪个"
        "编号正确。",
    ),
    "pacs-fetch-ended": (
        "Fetching ended before it was complete, and nothing was kept; try again.",
        "获取在完成前中断，未保留任何内容；请重试。",
    ),
    "pacs-unreachable": (
        "{pacs} is not reachable ({reason}); check host, port and firewall.",
        "无法连接 {pacs}（{reason}）；请检查主机、端口和防火墙。",
    ),
    "pacs-rejected": (
        "{pacs} rejected the association of {title} ({reason}); check the AE title of the PACS, and have the calling "
        "AE title registered there (--ae-title).",
        "{pacs} 拒绝了 {title} 的连接（{reason}）；请核对 PACS 的 AE Title，并在 PACS 中登记本机的 AE Title"
        "（--ae-title）。",
    ),
    "pacs-connection-lost": (
        "{pacs} ended the association of {title} without an answer; it may not permit query and retrieve for this AE "
        "title: have it registered there, or try again.",
        "{pacs} 未应答即结束了 {title} 的连接；可能未对该 AE Title开放查询与获取权限：请在 PACS 中登记，或重试。",
    ),
    "pacs-refused": (
        "{pacs} refused the request of {title} (status {status}); its administrator must permit query and retrieve "
        "for this AE title.",
        "{pacs} 拒绝了 {title} 的请求（状态 {status}）；需由 PACS 管理员为该 AE Title开放查询与获取权限。",
    ),
    "pacs-no-get": (
        "{pacs} does not support C-GET; have {title} registered there with this machine and a port, and give that port "
        "with --receive-port.",
        "{pacs} 不支持 C-GET；请在 PACS 中登记 {title}（本机地址和端口），并用 --receive-port 给出该端口。",
    ),
    "pacs-destination-unknown": (
        "{pacs} does not know the destination {title}; have it registered there with this machine and port {port}.",
        "{pacs} 不认识目标 {title}；请在 PACS 中登记该 AE Title、本机地址和端口 {port}。",
    ),
    "pacs-receive-port": (
        "The port {port} cannot be opened ({reason}); choose another --receive-port.",
        "无法打开端口 {port}（{reason}）；请用 --receive-port 另选一个。",
    ),
    "pacs-password-in-address": (
        "The address of {pacs} contains a user name; give it with --user, and the password in the environment variable "
        "GLIOMARK_PACS_PASSWORD or at the prompt.",
        "{pacs} 的地址中含有用户名；请用 --user 给出用户名，密码用环境变量 GLIOMARK_PACS_PASSWORD 或按提示输入。",
    ),
    "pacs-unencrypted": (
        "The token or password would be sent to {pacs} unencrypted; use the https address.",
        "令牌或密码将以明文发送到 {pacs}；请使用 https 地址。",
    ),
    "pacs-unauthorised": (
        "{pacs} requires a valid token or password (status {status}); set GLIOMARK_PACS_TOKEN, or give --user.",
        "{pacs} 需要有效的令牌或密码（状态 {status}）；请设置 GLIOMARK_PACS_TOKEN，或使用 --user。",
    ),
    "pacs-certificate": (
        "The certificate of {pacs} cannot be verified; give the file of your hospital's certificate authority in the "
        "environment variable REQUESTS_CA_BUNDLE.",
        "无法验证 {pacs} 的证书；请用环境变量 REQUESTS_CA_BUNDLE 给出医院证书颁发机构的文件。",
    ),
    "pacs-tls": (
        "An encrypted connection to {pacs} is not possible; check whether this port uses https.",
        "无法与 {pacs} 建立加密连接；请检查该端口是否使用 https。",
    ),
    "pacs-no-dicomweb": (
        "{pacs} does not answer as a DICOMweb service ({reason}); check the path of the address.",
        "{pacs} 的应答不符合 DICOMweb（{reason}）；请检查地址中的路径。",
    ),
    "pacs-web-status": (
        "{pacs} could not answer (status {status}); try again later, or ask its administrator.",
        "{pacs} 无法应答（状态 {status}）；请稍后重试，或联系管理员。",
    ),
    # ---- MONAI Label ------------------------------------------------------------------------------------
    "monai-not-offered": (
        "gliomark does not offer the call '{call}' of MONAI Label: upload studies, run inference and save labels here, "
        "and train with 'gliomark train'.",
        "gliomark 不提供 MONAI Label 的“{call}”调用：此处可上传检查、运行推理和保存标签；训练请用 gliomark train。",
    ),
    "monai-needs-study": (
        "Inference runs on uploaded studies only: upload the images first, then send the study's id as 'image'.",
        "推理仅适用于已上传的检查：请先上传影像，再以 image 发送服务器上该检查的 ID。",
    ),
    "monai-other-model": (
        "The study was prepared for the model '{model}'; choose that model.",
        "该检查是为模型“{model}”预处理的；请选择该模型。",
    ),
    "monai-parameters": (
        "The field 'params' is not a JSON object; send one, such as {{}}.",
        "params 字段不是 JSON 对象；请发送 JSON 对象，例如 {{}}。",
    ),
    "monai-extension": (
        "Results cannot be written as '{extension}'; set result_extension to {known}.",
        "结果无法写为“{extension}”；请将 result_extension 设为 {known}。",
    ),
    "monai-tag": (
        "Labels are saved and removed under the tag 'final', not '{tag}'; the model's own outline, 'original', is kept.",
        "标签只能以 final 标记保存或删除，不能用“{tag}”；模型自身的轮廓（original）始终保留。",
    ),
    "monai-no-original": (
        "The model has not outlined this study yet; run the inference first.",
        "模型尚未勾画该检查；请先运行推理。",
    ),
    "monai-strategy": (
        "There is no strategy '{strategy}'; choose {known}.",
        "没有“{strategy}”策略；请选择 {known}。",
    ),
    "monai-description": (
        "Segments glioma on preoperative MRI and predicts molecular markers. For research, not a medical device.",
        "在术前 MRI 上勾画胶质瘤并预测分子标志物。仅供科研使用，不是医疗器械。",
    ),
    # ---- uploads and server -----------------------------------------------------------------------------
    "server-unforeseen": (
        "Internal server error; inform the administrator.",
        "服务器内部错误；请告知管理员。",
    ),
    "server-starting": (
        "The server is still loading its models; try again in a moment.",
        "服务器仍在载入模型；请稍后再试。",
    ),
    "request-unfit": ("The request is invalid ({reason}).", "请求无效（{reason}）。"),
    "uploads-too-many": (
        'Too many uploads at once; try again in a minute.',
        '同时上传过多，请一分钟后重试。',
    ),
    "body-too-large": (
        "The request body exceeds {megabytes} MB; send only the required series.",
        "请求内容超过 {megabytes} MB；请只发送所需序列。",
    ),
    "content-length-unfit": (
        'Content-Length must be a number.',
        'Content-Length 必须是数字。',
    ),
    "upload-silent": ("The upload stalled; send it again.", "上传中途停滞；请重新发送。"),
    "upload-broken-off": ("The upload was interrupted; send it again.", "上传中断；请重新发送。"),
    "upload-slow": (
        "The upload is too slow; send it again over a faster connection.",
        "上传过慢；请使用更快的网络重新发送。",
    ),
    "no-such-study": (
        "The study does not exist on the server; upload it again.",
        "服务器上没有该检查；请重新上传。",
    ),
    "study-preparing": (
        "The study is still being prepared; wait until it is ready.",
        "影像仍在预处理中；请等待完成。",
    ),
    "study-failed": ("The study could not be prepared.", "无法预处理该影像。"),
    "no-such-prediction": ("The prediction does not exist.", "该预测不存在。"),
    "prediction-unanswered": (
        "The prediction is {state}; no result is available yet.",
        "预测状态为 {state}；尚无结果。",
    ),
    "study-removed": ("The images and results of the study were removed.", "该检查的影像与结果已被删除。"),
    "not-your-prediction": (
        "Only the user who requested the prediction, or an administrator, can cancel it.",
        "只有发起预测的用户或管理员可以取消。",
    ),
    "no-such-marker": ("The prediction has no marker '{marker}'.", "该预测不含标志物“{marker}”。"),
    "no-map": ("The heat map could not be drawn; try again.", "无法绘制热图；请重试。"),
    "no-such-level": (
        "'{value}' is not a level of {marker}; use {levels}.",
        "“{value}”不是 {marker} 的取值；应为 {levels}。",
    ),
    "no-such-model": (
        "The server has no model '{model}'; choose {known}.",
        "服务器上没有模型“{model}”；请选择 {known}。",
    ),
    "no-such-slice": ("The slice does not exist.", "该层面不存在。"),
    "no-such-sequence": ("The study has no sequence '{sequence}'.", "该检查没有“{sequence}”序列。"),
    "not-your-study": (
        "Only the user who uploaded the study, or an administrator, can change or remove it.",
        "只有上传者或管理员可以修改或删除该检查。",
    ),
    "not-corrected": (
        "The outline has not been corrected; send the corrected outline first.",
        "轮廓尚未修正；请先发送修正后的轮廓。",
    ),
    "no-found-outline": (
        "The images of this study came without a usable lesion mask.",
        "该检查的影像未附带可用的病灶掩膜。",
    ),
    "age-or-sex-missing": (
        "Age or sex is missing; provide both, or set without_clinical.",
        "缺少年龄或性别；请补全，或设置 without_clinical。",
    ),
    "name-outside": (
        "The file name '{name}' is not a path inside the patient's folder; send relative paths.",
        "文件名“{name}”不是患者文件夹内的路径；请发送相对路径。",
    ),
    "name-unfit": (
        "The file name {name} is too long or contains a character that is not allowed; rename the file.",
        "文件名 {name} 过长或含不允许的字符；请重命名该文件。",
    ),
    "too-many-files": (
        "The upload has more than {count} files; send only the required series.",
        "上传超过 {count} 个文件；请只发送所需序列。",
    ),
    "name-twice": (
        "The file name '{name}' occurs twice in the upload; send each file once.",
        "文件名“{name}”在上传中出现两次；每个文件请只发送一次。",
    ),
    "unpacked-too-large": (
        "The unpacked upload is larger than {megabytes} MB; send fewer files.",
        "上传内容解压后超过 {megabytes} MB；请减少文件。",
    ),
    "disk-full": (
        "The server cannot write the uploaded data; its disk may be full: inform the administrator.",
        "服务器无法写入上传的数据，磁盘可能已满；请告知管理员。",
    ),
    "no-form": (
        "The request body is not a multipart form ({reason}); send it again.",
        "请求内容不是 multipart 表单（{reason}）；请重新发送。",
    ),
    "form-fields": (
        "The form has too many fields; send at most a model and a patient_id.",
        "表单字段过多；至多发送 model 与 patient_id。",
    ),
    "form-field-long": (
        "A field of the form is too long; send at most a model and a patient_id.",
        "表单字段过长；至多发送 model 与 patient_id。",
    ),
    "form-wanted": (
        "Send the files as multipart/form-data, in the field 'files'.",
        '请以 multipart/form-data 在 files 字段中发送文件。',
    ),
    "form-without-file": (
        "The form has no file in the field '{field}'; send the file there.",
        "表单的 {field} 字段中没有文件；请在该字段发送文件。",
    ),
    "form-cut": ("The request body is incomplete; send it again.", "表单内容不完整；请重新发送。"),
    "upload-empty": (
        "The upload contains no files; send a patient's folder.",
        "上传中没有文件；请发送患者文件夹。",
    ),
    "zip-too-large": (
        "The unpacked zip file exceeds the limit of the server; send only the required series.",
        "压缩包解压后超过服务器上限；请只发送所需序列。",
    ),
    "zip-unreadable": (
        "The zip file cannot be unpacked ({reason}); create it again.",
        "无法解压该压缩包（{reason}）；请重新打包。",
    ),
    "zip-damaged": ("The zip file is damaged; create it again.", "压缩包已损坏；请重新打包。"),
    "zip-too-many": (
        "The zip file has more than {count} files; send only the required series.",
        "压缩包超过 {count} 个文件；请只发送所需序列。",
    ),
    "zip-link": (
        "The zip file contains the link '{name}'; include the file itself instead.",
        "压缩包含链接“{name}”；请打包文件本身。",
    ),
    "zip-locked": (
        "The zip file is protected by a password; send it without a password.",
        "压缩包有密码；请去掉密码后发送。",
    ),
    "upload-patients": (
        "The upload contains {count} patients ({names}); send one patient at a time.",
        "上传内容含 {count} 名患者（{names}）；每次请只上传一名。",
    ),
    "images-unreadable": (
        'The images could not be read ({kind}: {reason}).',
        '无法读取影像（{kind}：{reason}）。',
    ),
    "token-unknown": (
        "The token is invalid; ask the administrator for a valid one.",
        "令牌无效；请向管理员索取有效令牌。",
    ),
    "token-wanted": (
        "Authentication required; send the token as 'Authorization: Bearer TOKEN'.",
        "需要身份验证；请以 Authorization: Bearer TOKEN 发送令牌。",
    ),
    "admins-only": (
        "This request is restricted to administrators; use an administrator's token.",
        "该请求仅限管理员；请使用管理员令牌。",
    ),
    "host-unfit": (
        "The Host or Origin header of the request is not a valid address.",
        "请求的 Host 或 Origin 不是有效地址。",
    ),
    "this-machine-only": (
        "The server accepts requests from this computer only; use the address 127.0.0.1.",
        "服务器只接受本机请求；请使用地址 127.0.0.1。",
    ),
    "other-site": ("Pages of other sites cannot access this server.", "其他网站的页面不得访问该服务器。"),
    "outline-unreadable": (
        "The outline is not a readable PNG file; send an 8-bit greyscale PNG.",
        "轮廓不是可读取的 PNG 文件；请发送 8 位灰度 PNG。",
    ),
    "outline-size": (
        "The outline is {columns} x {rows} pixels but must be {wanted_columns} x {wanted_rows}, with the slices "
        "stacked vertically.",
        "轮廓为 {columns} × {rows} 像素，应为 {wanted_columns} × {wanted_rows}（各层自上而下排列）。",
    ),
    "outline-kind": (
        "The outline has the image mode {kind}; send an 8-bit greyscale PNG with the values 0 and 255.",
        "轮廓图像模式为 {kind}；请发送取值为 0 和 255 的 8 位灰度 PNG。",
    ),
    "data-folder-unfit": (
        "The data folder {folder} cannot be used ({reason}); choose another one.",
        "数据文件夹 {folder} 无法使用（{reason}）；请另选一个。",
    ),
    "worker-died": (
        "The worker process ended unexpectedly {attempts} times on this task; try again, and inform the "
        "administrator.",
        "处理进程因该任务异常终止 {attempts} 次；请重试，并告知管理员。",
    ),
    "model-gone": (
        "The server no longer has the model '{model}'; choose another one and upload the study again.",
        "服务器上已没有模型“{model}”；请选择其他模型并重新上传影像。",
    ),
    "prepared-for-another-model": (
        "The study was prepared ({prepared}) for a model with other sequences or settings than '{model}' ({needed}); "
        "prepare it again, on a server by uploading it.",
        "该影像（{prepared}）是为其他模型预处理的，其序列或设置与“{model}”（{needed}）不同；请重新预处理，在服务器上请重新上传。",
    ),
    "answer-of-other-weights": (
        "The result is from different model weights, which are no longer available; predict again.",
        "该结果由另一份模型权重得出，该权重已不可用；请重新预测。",
    ),
    "not-computed": ("The computation failed ({kind}: {reason}).", "无法完成计算（{kind}：{reason}）。"),
    "the-upload": ("the upload", "上传的内容"),
    "streams-too-many": (
        "Too many open event streams; close some, or try again in a moment.",
        "打开的事件流过多；请关闭一部分，或稍后重试。",
    ),
    "token-wanted-again": (
        "Authentication required, although all tokens of this server have been revoked; the administrator can "
        "create one with: gliomark token add NAME --data FOLDER",
        "需要身份验证，但该服务器的令牌已全部撤销；请管理员新建：gliomark token add NAME --data FOLDER",
    ),
    "worker-stuck": (
        "The computation made no progress for {minutes} minutes and was stopped {attempts} times; try again, and "
        "inform the administrator.",
        "该任务 {minutes} 分钟无进展，已被终止 {attempts} 次；请重试，并告知管理员。",
    ),
    "audit-intact": (
        "{count} lines, intact, head {sha256} ({number}, {at})",
        "{count} 条记录，完整，末条哈希 {sha256}（第 {number} 条，{at}）",
    ),
    "audit-found": ("{intact}; the expected head is at line {noted}", "{intact}；预期的哈希为第 {noted} 条"),
    "audit-empty": ("0 lines, intact: nothing has been recorded yet", "0 条记录，完整：尚无任何记录"),
    "audit-altered": (
        "Line {number} of the audit log was modified after it was written; the {intact} lines before it are intact.",
        "审计日志第 {number} 条在写入后被修改；其前 {intact} 条完整。",
    ),
    "audit-missing": (
        "Line {number} of the audit log is missing; the {intact} lines before it are intact.",
        "审计日志缺少第 {number} 条；其前 {intact} 条完整。",
    ),
    "audit-missing-lines": (
        "Lines {first} to {last} of the audit log are missing; the {intact} lines before them are intact.",
        "审计日志缺少第 {first} 至 {last} 条；其前 {intact} 条完整。",
    ),
    "audit-swapped": (
        "Lines {one} and {other} of the audit log were swapped.",
        "审计日志第 {one} 条与第 {other} 条被互换。",
    ),
    "audit-inserted": (
        "Line {number} of the audit log was inserted later; the {intact} lines before it are intact.",
        "审计日志第 {number} 条为事后插入；其前 {intact} 条完整。",
    ),
    "audit-renumbered": (
        "Line {number} of the audit log was written as line {original}: the line numbers were changed.",
        "审计日志第 {number} 条写入时为第 {original} 条：编号被更改。",
    ),
    "audit-head-gone": (
        "The expected head {sha256} is in none of the {count} lines of the audit log, although the lines form an "
        "unbroken chain: lines at the end were removed, the log was rewritten, or an older copy was restored.",
        "审计日志的 {count} 条记录虽首尾相连，但其中没有预期的哈希 {sha256}：末尾记录被删除、日志被重写，或恢复了较"
        "早的副本。",
    ),
    "audit-head-row-gone": (
        "The database's record of the newest line of the audit log (table audit_head) is missing: the database was "
        "changed manually, or only part of it was restored; restore a complete copy.",
        "数据库中关于审计日志末条记录的登记（表 audit_head）缺失：数据库被手动更改，或只恢复了一部分；请恢复完整的副"
        "本。",
    ),
    "audit-away": (
        "The server cannot record this access in the audit log, so the data are not shown; try again in a minute, "
        "or inform the administrator.",
        "服务器无法将此次访问写入审计日志，因此暂不显示；请一分钟后重试，或告知管理员。",
    ),
    "audit-hash-unfit": (
        "'{text}' is not a SHA-256 hash: enter the 64 characters printed by 'gliomark audit head'.",
        "“{text}”不是 SHA-256 哈希：请输入 gliomark audit head 打印的 64 位字符。",
    ),
    "audit-time-unfit": (
        "'{text}' is not a date or time: write for example 2026-11-26 or 2026-11-26T08:00 (UTC).",
        "“{text}”不是日期或时间：请写成如 2026-11-26 或 2026-11-26T08:00（UTC）。",
    ),
    "audit-unreadable": (
        "The audit log contains an unreadable line: the database was changed manually; 'gliomark audit verify' "
        "identifies the line.",
        "审计日志中有无法读取的记录：数据库被手动更改；gliomark audit verify 会指出是哪一条。",
    ),
    "no-database": (
        "{folder} contains no gliomark.db: specify the server's data folder with --data, or its database with "
        "--database.",
        "{folder} 中没有 gliomark.db：请用 --data 指定服务器的数据文件夹，或用 --database 指定其数据库。",
    ),
    "destination-unfit": (
        "'{text}' is not the address of a PACS or another DICOM node; write AET@host:port or "
        "http(s)://host/dicom-web.",
        "“{text}”不是有效的 PACS 或 DICOM 节点地址；请写成 AET@主机:端口 或 http(s)://主机/dicom-web。",
    ),
    "title-unfit": (
        "'{title}' is not a valid AE title; use 1 to 16 letters, digits or other characters except the backslash.",
        "“{title}”不是有效的 AE Title；请给出 1 至 16 个字母、数字或符号（不含反斜杠）。",
    ),
    "node-open": (
        "Any device in the network could send studies to {host}; restrict the senders with --dicom-peer AET.",
        "网络中任何设备都可向 {host} 发送检查；请用 --dicom-peer AET 限定发送设备。",
    ),
    "node-options-without-port": (
        "{option} is for the DICOM node, which is not started; add --dicom-port.",
        "{option} 用于 DICOM 节点，但该节点未启动；请加上 --dicom-port。",
    ),
    "commitment-nowhere": (
        "--storage-commitment asks archives that are reached by C-STORE, and none is named; add --send-to AET@host:port.",
        "--storage-commitment 向以 C-STORE 连接的归档系统请求承诺，但未指定任何一个；请加上 --send-to AET@host:port。",
    ),
    "node-port": (
        "The DICOM port {port} cannot be opened ({reason}); choose another --dicom-port.",
        "无法打开 DICOM 端口 {port}（{reason}）；请用 --dicom-port 另选一个。",
    ),
    "token-role": ("The role '{role}' is unknown; use {known}.", "未知角色“{role}”；应为 {known}。"),
    "token-name-taken": (
        "A token named '{name}' already exists; revoke it, or choose another name.",
        "已有名为“{name}”的令牌；请先撤销，或换一个名称。",
    ),
    "no-such-token": ("There is no token named '{name}'.", "没有名为“{name}”的令牌。"),
    "model-file-missing": (
        "The weights file {file} of the model '{model}' does not exist; check the path.",
        "模型“{model}”的权重文件 {file} 不存在；请检查路径。",
    ),
    "port-taken": (
        "Port {port} of {host} cannot be opened ({reason}); choose another --port.",
        "无法打开 {host} 的端口 {port}（{reason}）；请用 --port 另选一个。",
    ),
    "data-folder-taken": (
        "Another server is using the data folder {folder}; stop it, or choose another --data.",
        "数据文件夹 {folder} 正被另一个服务器使用；请先停止它，或用 --data 另选一个。",
    ),
    "tls-half": (
        "TLS needs two files; specify both --tls-certificate and --tls-key.",
        "TLS 需要两个文件；请同时指定 --tls-certificate 与 --tls-key。",
    ),
    "tls-file-missing": (
        "The TLS file {file} does not exist; check the path.",
        "TLS 文件 {file} 不存在；请检查路径。",
    ),
    "tls-wanted": (
        "Patients' images would be sent unencrypted over the network on {host}; specify --tls-certificate and "
        "--tls-key, or listen on 127.0.0.1.",
        "在 {host} 上患者影像将以明文经网络传输；请指定 --tls-certificate 与 --tls-key，或只监听 127.0.0.1。",
    ),
    "tokens-wanted": (
        "Anyone in the network could access the server on {host}; first add a token: gliomark token add NAME.",
        "网络中任何人都可访问 {host} 上的服务器；请先添加令牌：gliomark token add NAME。",
    ),
    # ---- page of the server (its other texts are those of the desktop client) -----------------------------
    "page-sign-in": ("Sign in", "登录"),
    "page-sign-out": ("Sign out", "退出登录"),
    "page-token-note": (
        "The administrator of this server issues access tokens. Yours is kept until you close this tab.",
        "访问令牌由本服务器的管理员发放，仅保留至您关闭此标签页。",
    ),
    "page-studies": ("Studies on this server", "服务器上的检查"),
    "page-find": ("Find by patient id", "按患者编号查找"),
    "page-no-studies": ("There are no studies yet.", "尚无检查。"),
    "page-study-preparing": ("in preparation", "处理中"),
    "page-study-failed": ("failed", "失败"),
    "page-drop": ("Drop a patient's folder or zip file here.", "将患者文件夹或 zip 文件拖到此处。"),
    "page-drop-now": ("Release to upload the images of this patient.", "松开即可上传该患者的影像。"),
    "page-choose-files": ("Choose files…", "选择文件…"),
    "page-age-range": ("Enter an age from 0 to 120 years.", "请输入 0 至 120 岁之间的年龄。"),
    "page-pathology": ("Pathology result", "病理结果"),
    "page-pathology-note": ("Note (optional)", "备注（可选）"),
    "page-pathology-save": ("Record", "记录"),
    "page-pathology-recorded": ("{level}, recorded on {date}", "{level}，记录于 {date}"),
    "page-no-webgl": (
        "This browser cannot show the images because WebGL 2 is missing or switched off: use a current version of "
        "Chrome, Edge, Firefox or Safari.",
        "此浏览器缺少或已停用 WebGL 2，无法显示影像：请使用新版 Chrome、Edge、Firefox 或 Safari。",
    ),
    # ---- stored records and database --------------------------------------------------------------------
    "stored-missing": (
        "{file}, which the server stored for this study, is missing: restore the data folder from a backup, or "
        "upload the study again.",
        "服务器为该检查保存的文件 {file} 缺失：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "stored-damaged": (
        "{file}, which the server stored for this study, is damaged ({reason}): restore the data folder from a "
        "backup, or upload the study again.",
        "服务器为该检查保存的文件 {file} 已损坏（{reason}）：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "stored-newer": (
        "{file} was written by a newer version of gliomark: start that version with this data folder.",
        "{file} 由更新版本的 gliomark 写入：请用该版本打开此数据文件夹。",
    ),
    "stored-older": (
        "{file}, which an earlier version of gliomark stored for this study, cannot be converted ({reason}): "
        "restore the data folder from a backup, or upload the study again.",
        "早期版本的 gliomark 为该检查保存的文件 {file} 无法转换（{reason}）：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "database-unopened": (
        "The database cannot be opened ({reason}); check its URL.",
        "无法打开数据库（{reason}）；请检查其 URL。",
    ),
    "database-newer": (
        "The database was used by a newer version of gliomark: start that version, or restore a backup made before "
        "the upgrade.",
        "数据库已被更新版本的 gliomark 使用：请启动该版本，或恢复升级前的备份。",
    ),
    "database-foreign": (
        "The database was created by another version of gliomark or by another program and contains unknown tables: "
        "specify another --data folder or --database, and keep this one for the program that created it.",
        "数据库由其他版本的 gliomark 或其他程序创建，其中有无法识别的表：请另行指定 --data 文件夹或 --database，并保"
        "留此数据库供原程序使用。",
    ),
    "database-not-upgraded": (
        "The database could not be upgraded to this version ({reason}) and is unchanged: start the previous "
        "version, and inform the maintainers of gliomark.",
        "数据库未能升级到此版本（{reason}），内容保持不变：请先使用之前的版本，并告知 gliomark 的维护者。",
    ),
    # ---- location of the lesion ----------------------------------------------------------------------------
    "atlas-missing": (
        "The lesion can be located only with the atlas, which is not installed: pip install \"gliomark[atlas]\".",
        "未安装脑图谱，无法给出病灶位置：请运行 pip install \"gliomark[atlas]\"。",
    ),
    "template-missing": (
        "The installed nilearn lacks the MNI152 template: pip install \"gliomark[atlas]\" installs a suitable version.",
        "所安装的 nilearn 缺少 MNI152 模板：请运行 pip install \"gliomark[atlas]\" 安装合适的版本。",
    ),
    "location-summary": (
        "approximately: {region} ({percent:.0f} % of the volume)",
        "大致位置：{region}（占病灶体积的 {percent:.0f} %）",
    ),
    "location-left": ("The lesion is on the left side.", "病灶位于左侧。"),
    "location-right": ("The lesion is on the right side.", "病灶位于右侧。"),
    "location-both-sides": (
        "The lesion is on both sides of the midline: {left:.0f} % of its volume left, {right:.0f} % right.",
        "中线两侧均有病灶：病灶体积的 {left:.0f} % 在左侧，{right:.0f} % 在右侧。",
    ),
    "location-image-left": (
        "The lesion is on the left of the image. The images do not state which of the patient's sides that is; "
        "in radiological convention it is the right.",
        "病灶位于图像左侧。影像未注明其对应患者的哪一侧；按放射学惯例为患者右侧。",
    ),
    "location-image-right": (
        "The lesion is on the right of the image. The images do not state which of the patient's sides that is; "
        "in radiological convention it is the left.",
        "病灶位于图像右侧。影像未注明其对应患者的哪一侧；按放射学惯例为患者左侧。",
    ),
    "location-image-both": (
        "The lesion is on both sides of the midline: {left:.0f} % of its volume on the left of the image, "
        "{right:.0f} % on the right. The images do not state which of the patient's sides these are.",
        "中线两侧均有病灶：病灶体积的 {left:.0f} % 在图像左侧，{right:.0f} % 在图像右侧。影像未注明其对应患者的哪一侧。",
    ),
    "location-no-distances": (
        "Distances are not given, because the images do not state their scale.",
        "影像未注明比例，因此不给出距离。",
    ),
    "location-caution": (
        "Approximate, from an atlas of average brains: for orientation only, not for navigation.",
        "根据平均脑图谱得出的近似值：仅供了解大致方位，不得用于导航。",
    ),
    "location-brain-cut": (
        "The location of the lesion is not given, because the images show too little of the brain.",
        "影像显示的脑部范围过小，因此不给出病灶位置。",
    ),
    "location-not-registered": (
        "The location of the lesion is not given, because the brain could not be matched to the atlas.",
        "脑部未能与图谱配准，因此不给出病灶位置。",
    ),
    "location-turned": (
        "The location of the lesion is not given, because the brain resembles the atlas more if it is turned back to "
        "front or upside down: check the orientation of the images.",
        "将脑部前后或上下翻转后与图谱更相似，因此不给出病灶位置：请检查影像方向。",
    ),
    "on-the-left": ("left {name}", "左侧{name}"),
    "on-the-right": ("right {name}", "右侧{name}"),
    "region-frontal-lobe": ("frontal lobe", "额叶"),
    "region-parietal-lobe": ("parietal lobe", "顶叶"),
    "region-temporal-lobe": ("temporal lobe", "颞叶"),
    "region-occipital-lobe": ("occipital lobe", "枕叶"),
    "region-insula": ("insula", "岛叶"),
    "region-cingulate-gyrus": ("cingulate gyrus", "扣带回"),
    "region-deep-grey-matter": ("basal ganglia and thalamus", "基底节与丘脑"),
    "region-brain-stem": ("brain stem", "脑干"),
    "region-cerebellum": ("cerebellum", "小脑"),
    "region-corpus-callosum": ("corpus callosum", "胼胝体"),
    "area-motor-cortex": ("motor cortex", "运动皮层"),
    "area-sensory-cortex": ("sensory cortex", "感觉皮层"),
    "area-broca-area": ("Broca's area", "Broca 区"),
    "area-wernicke-area": ("Wernicke's area", "Wernicke 区"),
    "area-visual-cortex": ("visual cortex", "视觉皮层"),
    "area-basal-ganglia-internal-capsule": ("basal ganglia and internal capsule", "基底节与内囊"),
    "area-brain-stem": ("brain stem", "脑干"),
    # ---- files ------------------------------------------------------------------------------------------
    "file-disk-full": (
        "{path} could not be written: the disk is full or the quota is used up. Free some space and try again; "
        "files written earlier are unchanged.",
        "无法写入 {path}：磁盘已满或配额已用尽。请释放空间后重试；此前写入的内容保持不变。",
    ),
    "file-too-large": (
        "{path} could not be written: the file exceeds the size limit of the file system or the account. Choose "
        "another location.",
        "无法写入 {path}：文件超过该文件系统或账户允许的大小；请另选位置。",
    ),
    "file-system-read-only": (
        "{path} could not be written: the file system is read-only. Choose another location.",
        "无法写入 {path}：该文件系统为只读；请另选位置。",
    ),
    "file-not-permitted": (
        "{path}: permission denied. Choose another location, or ask the owner of the folder for access.",
        "{path}：没有访问权限。请另选位置，或请文件夹所有者授权。",
    ),
    "file-name-too-long": (
        "{path}: the name is too long for the file system. Choose a shorter one.",
        "{path}：名称超过文件系统允许的长度；请使用较短的名称。",
    ),
    "file-disk-fault": (
        "{path}: the disk reports an error ({reason}). Use another disk, and have this one checked.",
        "{path}：磁盘报告错误（{reason}）。请改用其他磁盘，并检查该磁盘。",
    ),
}  # fmt: skip


MAX_QUOTED_CHARACTERS = 300  # of a cell, a name or a column quoted in a message


class Message(str):
    """A message: its English text as a ``str``, with its code and parameters."""

    code: str
    parameters: Mapping[str, Any]

    def __new__(cls, code: str, parameters: Mapping[str, Any]) -> Message:
        """Format the English text of a code.

        Raises
        ------
        KeyError
            If the code is unknown or a parameter of its text is missing.
        """
        self = super().__new__(cls, MESSAGES[code][0].format_map(parameters))
        self.code, self.parameters = code, dict(parameters)
        return self

    def __reduce__(self) -> tuple[Callable[..., str], tuple[Any, ...]]:
        """Keep code and parameters when pickled or copied, and the text for versions that lack the code."""
        return _rebuild_message, (self.code, self.parameters, str(self))


def message(code: str, /, **parameters: Any) -> Message:
    """Create the message of a code, with text parameters cut to ``MAX_QUOTED_CHARACTERS`` characters.

    Raises
    ------
    KeyError
        If the code is unknown or a parameter of its text is missing.
    """
    return Message(code, {name: _truncate_text(value) for name, value in parameters.items()})


def _truncate_text(value: Any) -> Any:
    if isinstance(value, Message) or not isinstance(value, str) or len(value) <= MAX_QUOTED_CHARACTERS:
        return value
    return f"{value[:MAX_QUOTED_CHARACTERS]}…"


def render_message(text: str, language: Language) -> str:
    """Return a message in the given language; any other text is returned unchanged."""
    if not isinstance(text, Message):
        return text
    filled = {name: _render_value(value, language) for name, value in text.parameters.items()}
    return MESSAGES[text.code][LANGUAGES.index(language)].format_map(filled)


def to_message_record(text: str) -> dict[str, Any]:
    """Convert a text to JSON data: ``text`` (English) and, for a message, ``code`` and ``parameters``."""
    record: dict[str, Any] = {"text": str(text)}
    if isinstance(text, Message):
        parameters = {name: _to_json_value(value) for name, value in text.parameters.items()}
        record |= {"code": text.code, "parameters": parameters}
    return record


def from_message_record(record: Mapping[str, Any]) -> str:
    """Return the message of a record from ``to_message_record``, or its plain text if this version lacks the code."""
    try:
        parameters = {name: _from_json_value(value) for name, value in record["parameters"].items()}
    except (KeyError, TypeError, AttributeError):
        return str(record["text"])
    return _rebuild_message(record.get("code", ""), parameters, str(record["text"]))


def find_message_for_text(text: str, *codes: str) -> str:
    """Return the message among ``codes`` whose English text is ``text`` (as in a weights file), else ``text``.

    Its parameters are the words of ``text`` in their places.
    """
    for code in codes:
        if code in MESSAGES and (found := _compile_template(MESSAGES[code][0]).fullmatch(text)):
            return Message(code, found.groupdict())
    return text


@cache
def _compile_template(template: str) -> re.Pattern[str]:
    parts = Formatter().parse(template)
    return re.compile(
        "".join(re.escape(literal) + (rf"(?P<{name}>\S+)" if name else "") for literal, name, _, _ in parts)
    )


def find_level_message(level: str) -> str:
    """Return the message of a marker level, or the level itself if it is not in the catalogue."""
    return find_message_for_text(level, f"level-{level.strip().lower().replace(' ', '-')}")


def describe_level(level: str, is_borderline: bool, language: Language) -> str:
    """Describe a level for a report: "mutant", or "borderline, leaning mutant"."""
    word = find_level_message(level)
    return render_message(message("level-borderline", level=word) if is_borderline else word, language)


def format_percent(probability: float | None) -> str:
    """Format a probability (0 to 1) as whole per cent, at the extremes as < 1 % or > 99 %, and None as a dash."""
    if probability is None:
        return "–"
    value = round(100 * probability)
    return "< 1 %" if value < 1 else "> 99 %" if value > 99 else f"{value} %"


def collect_message_records(value: Any) -> list[dict[str, Any]]:
    """Collect the records of all messages in nested data, each once, so that a reader can render them in any language."""
    record_by_text: dict[str, dict[str, Any]] = {}
    for text in _iterate_texts(value):
        if isinstance(text, Message):
            record_by_text.setdefault(str(text), to_message_record(text))
    return list(record_by_text.values())


def restore_messages(value: Any, records: Iterable[Mapping[str, Any]]) -> Any:
    """Replace every text in nested data that has a record from ``collect_message_records`` by its message."""
    messages = {record["text"]: from_message_record(record) for record in records}
    return _restore_value(value, messages)


def _iterate_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _iterate_texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _iterate_texts(part)


def _restore_value(value: Any, messages: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return messages.get(value, value)
    if isinstance(value, Mapping):
        return {name: _restore_value(part, messages) for name, part in value.items()}
    return [_restore_value(part, messages) for part in value] if isinstance(value, list | tuple) else value


def _render_value(value: Any, language: Language) -> Any:
    return render_message(value, language) if isinstance(value, Message) else value


def _rebuild_message(code: str, parameters: Mapping[str, Any], text: str) -> str:
    """Return the message, or its plain text if this version lacks the code or a parameter is missing or unsuitable."""
    try:
        return Message(code, parameters)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return text


def _to_json_value(value: Any) -> Any:
    """Convert a parameter to a JSON value: NumPy numbers to numbers, paths and errors to text."""
    if isinstance(value, Message):
        return to_message_record(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) and isfinite(value) else str(value)


def _from_json_value(value: Any) -> Any:
    return from_message_record(value) if isinstance(value, Mapping) else value
