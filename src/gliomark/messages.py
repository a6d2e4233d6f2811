"""Every sentence that a person may read, as data: a code with its parameters, rendered in English or Chinese.

``message("sequence-missing", patient=..., ...)`` makes one. It is a ``str``, its English text, so that errors,
logs and tables can use it as it is; a report, a window or a page renders it in its reader's language with
``render``. Across a process or a network it travels as its code and parameters (``to_record``,
``from_record``), never as a sentence to be recognised again.

The texts are format strings: ``{count}``, ``{size:.3g}``. A parameter may be a message itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# By section, as the rooms lie; code: (English, Chinese). What is wrong, where, and what to do.
MESSAGES: Mapping[str, tuple[str, str]] = {
    # ---- folders and pictures ---------------------------------------------------------------------------
    "grey-no-numbers": (
        "{source} holds no grey values: every voxel is blank, transparent or not a number; export it again.",
        "{source} 没有可用的灰度值：全部像素为空、透明或非数值；请重新导出。",
    ),
    "grey-missing": (
        "{name}: {count} voxels have no grey value (not a number, or transparent) and are taken for background.",
        "{name}：{count} 个体素没有灰度值（非数值或透明），按背景处理。",
    ),
    "grey-padding": (
        "{name}: {count} voxels hold a filling value far below all others and are taken for background.",
        "{name}：{count} 个体素为远低于其他灰度的填充值，按背景处理。",
    ),
    "grey-constant": (
        "{source} is black or of one grey value everywhere: export it again.",
        "{source} 全黑或全部为同一灰度值：请重新导出。",
    ),
    "grey-inverted": (
        "{source} is bright where air should be and dark inside, as a negative is: export it with the usual "
        "greys (air black), without a white frame.",
        "{source} 的空气区域为亮、头部为暗，像是反相（负片）图像：请按常规灰度（空气为黑）重新导出，"
        "且不要带白色边框。",
    ),
    "grey-inverted-slices": (
        "{source} is bright where air should be in slice {slices}, as a negative is, but not in the others: export the "
        "series again.",
        "{source} 的层面 {slices} 空气区域为亮，像是反相（负片）图像，而其他层面正常：请重新导出该序列。",
    ),
    "picture-folder-empty": (
        "{folder} holds no pictures: put its slices there or remove the folder.",
        "{folder} 中没有图片：请放入该序列的各层面图片，或删除该文件夹。",
    ),
    "picture-two-folders": (
        "Both {one} and {other} in {folder} are {what} by their names: two patients or a repeat may be mixed, "
        "keep one folder of each.",
        "{folder} 中的 {one} 与 {other} 按名称都是{what}：可能混入了两名患者或重复扫描，每种只保留一个文件夹。",
    ),
    "lesion-mask": ("a lesion mask", "病灶掩膜"),
    "picture-twice": (
        "Slice {slice} is in {folder} twice, as {one} and {other}: remove one.",
        "{folder} 中层面 {slice} 出现两次（{one} 和 {other}）：请删除其中一个。",
    ),
    "picture-names-differ": (
        "The slice names in {one} ({one_count} slices) and {other} ({other_count} slices) do not match: {names} "
        "only in one of them; give slices of one place the same name in every folder.",
        "{one}（{one_count} 层）与 {other}（{other_count} 层）的层面名称不一致：{names} 只在其中一个文件夹；"
        "请让同一位置的层面在各文件夹中同名。",
    ),
    "and-others": ("{names} and others", "{names} 等"),
    "picture-sizes-differ": (
        "The pictures in {one} are {one_size} and those in {other} {other_size} pixels: export all sequences in "
        "one size.",
        "{one} 中的图片为 {one_size} 像素，而 {other} 中为 {other_size} 像素：请以同一尺寸导出所有序列。",
    ),
    "picture-size-differs": (
        "{one} is {one_size} pixels but {other} beside it {other_size}: export all slices in one size.",
        "{one} 为 {one_size} 像素，而同一文件夹的 {other} 为 {other_size} 像素：请以同一尺寸导出所有层面。",
    ),
    "picture-depths-differ": (
        "{one} has {one_depth} grey values but {other} beside it {other_depth}, so their greys cannot be compared: "
        "export all slices of a sequence with one bit depth.",
        "{one} 为 {one_depth} 灰度，而同一文件夹的 {other} 为 {other_depth} 灰度，灰度值无法比较："
        "请以同一位深导出该序列的所有层面。",
    ),
    "bits": ("{count}-bit", "{count} 位"),
    "floating-point": ("floating-point", "浮点"),
    "picture-damaged": (
        "{file} is truncated or damaged, or of a kind that is not read: copy it again, or save it as PNG.",
        "{file} 不完整、已损坏或格式不受支持：请重新复制，或另存为 PNG。",
    ),
    "picture-several": (
        "{file} holds {count} pictures: save every slice in a file of its own.",
        "{file} 含有 {count} 幅图片：请将每个层面单独保存为一个文件。",
    ),
    "picture-turned": (
        "{file} is marked to be shown turned or mirrored (EXIF): save it upright.",
        "{file} 带有旋转或镜像显示标记（EXIF）：请按正确方向另存。",
    ),
    "picture-coloured": (
        "{file} is a colour picture: export grey pictures without coloured marks.",
        "{file} 是彩色图片：请导出不带彩色标记的灰度图片。",
    ),
    "picture-colour-depth": (
        "{file} stores {bits} bits of grey as a colour picture or with transparency, of which only 8 can be read: "
        "save it as a plain grey picture of 16 bits.",
        "{file} 以彩色或带透明通道的方式保存了 {bits} 位灰度，只能读取其中 8 位：请另存为普通的 16 位灰度图片。",
    ),
    "picture-half-transparent": (
        "{file} is partly see-through, so its greys depend on what lies behind: save it without transparency.",
        "{file} 含有半透明像素，灰度取决于其背后的内容：请去除透明通道后另存。",
    ),
    "picture-white-unknown": (
        "{file} does not say whether 0 is black or white (TIFF tag PhotometricInterpretation): save it again, "
        "for example as PNG.",
        "{file} 未说明 0 表示黑还是白（TIFF 标签 PhotometricInterpretation）：请另存，例如存为 PNG。",
    ),
    "picture-signed": (
        "{file} stores signed 8-bit values, which viewers show wrongly: save it as a plain grey picture.",
        "{file} 以有符号 8 位数值保存，无法可靠读取：请另存为普通灰度图片。",
    ),
    "picture-mask-inverted": (
        "The mask in {folder} marks most of the pictures' edge, as an inverted one does: give the lesion in white "
        "on black.",
        "{folder} 中的掩膜覆盖了图片的大部分边缘，像是反相的掩膜：请用黑底白色表示病灶。",
    ),
    "picture-mask-mixed": (
        "The mask {file} marks the lesion with 1 but other slices with 255: save all masks in one way.",
        "掩膜 {file} 用 1 表示病灶，而其他层面用 255：请统一掩膜的取值。",
    ),
    "picture-orientation-assumed": (
        "The pictures are taken for axial slices, the patient's right on the left, named towards the head.",
        "图片按轴位层面处理：图像左侧为患者右侧，名称由足侧向头侧递增。",
    ),
    "picture-spacing-unusable": (
        "The spacing {spacing} is not usable: give three positive millimetres.",
        "像素间距 {spacing} 无效：请给出三个正的毫米数。",
    ),
    "picture-spacing-assumed": (
        "The pictures carry no millimetres: {in_plane:.4g} x {in_plane:.4g} mm pixels and {step:.3g} mm from slice "
        "to slice are assumed, so areas and volumes are estimates.",
        "图片不含毫米信息：假定像素为 {in_plane:.4g} x {in_plane:.4g} mm、层间距 {step:.3g} mm，"
        "因此面积和体积为估计值。",
    ),
    "folder-missing": ("{folder} does not exist: check the path.", "{folder} 不存在：请检查路径。"),
    "folder-is-file": ("{folder} is a file: give the patient's folder.", "{folder} 是文件：请给出患者的文件夹。"),
    "folder-unlisted": (
        "{folder} cannot be listed ({reason}): check the path and its permissions.",
        "无法读取文件夹 {folder}（{reason}）：请检查路径和权限。",
    ),
    "folder-empty": (
        "{folder} is empty: give a patient's folder with pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, "
        "T1C, T2 or FLAIR in their name, or DICOM.",
        "{folder} 是空文件夹：请给出患者的文件夹，内含按 <患者>/<序列>/<层面>.jpg 存放的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-no-images": (
        "{folder} holds no patient's images: give pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, T1C, T2 "
        "or FLAIR in their name, or DICOM.",
        "{folder} 中没有患者图像：请给出按 <患者>/<序列>/<层面>.jpg 存放的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-many-patients": (
        "{folder} holds {count} patients: give one of them, such as {patient}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {patient}。",
    ),
    "pictures-loose": (
        "{folder} holds pictures but no sequence folders: put them in subfolders T1C, T2 and so on.",
        "{folder} 中有图片但没有序列文件夹：请将图片分别放入 T1C、T2 等子文件夹。",
    ),
    # ---- volumes: NIfTI, MetaImage, NRRD ----------------------------------------------------------------
    "volume-scaling": (
        "{file} states a scaling of its grey values that is not a number (scl_slope, scl_inter): convert it again.",
        "{file} 中灰度值的缩放系数（scl_slope、scl_inter）不是有效数值：请重新转换。",
    ),
    "volume-unopened": (
        "{file} cannot be opened ({reason}): check its permissions.",
        "{file} 无法打开（{reason}）：请检查访问权限。",
    ),
    "volume-damaged": (
        "{file} is damaged or no image volume: copy or convert it again.",
        "{file} 已损坏或不是影像容积文件：请重新拷贝或转换。",
    ),
    "volume-analyze": (
        "{file} is in the old Analyze format, which does not state where left and right are: convert the original "
        "DICOM images to NIfTI.",
        "{file} 为旧的 Analyze 格式，不含左右方位信息：请由原始 DICOM 影像转换为 NIfTI。",
    ),
    "volume-huge": (
        "{file} holds {millions:.0f} million voxels, more than any MR image; at most {most:.0f} million are read.",
        "{file} 含 {millions:.0f} 百万个体素，超过任何磁共振影像；最多读取 {most:.0f} 百万个。",
    ),
    "volume-coloured": (
        "{file} holds colours or complex numbers: give a grey-value volume.",
        "{file} 为彩色或复数影像：请提供灰度容积。",
    ),
    "volume-not-3d": (
        "{file} is not one 3-D volume (its size is {sizes}): give a single volume of all slices.",
        "{file} 不是单个三维容积（大小为 {sizes}）：请提供含全部层面的单个容积。",
    ),
    "volume-steps": (
        "{file} states no usable voxel size ({steps}): convert the original images again.",
        "{file} 未给出可用的体素大小（{steps}）：请由原始影像重新转换。",
    ),
    "volume-form-unusable": (
        "{file} states no usable orientation (its sform and qform are zero, not numbers or contradictory): convert "
        "the original images again.",
        "{file} 未给出可用的方位（sform 与 qform 为零、不是数值或自相矛盾）：请由原始影像重新转换。",
    ),
    "volume-form-steps": (
        "{file} states two different voxel sizes ({one} and {other} in its units): convert the original images again.",
        "{file} 给出两种不同的体素大小（{one} 与 {other}，以文件单位计）：请由原始影像重新转换。",
    ),
    "volume-form-axes": (
        "{file} states two orientations that contradict each other (its sform and qform run in different directions, "
        "so left and right are uncertain): convert the original images again.",
        "{file} 给出两种互相矛盾的方位（sform 与 qform 的方向不同，左右无法确定）：请由原始影像重新转换。",
    ),
    "volume-form-place": (
        "{file} states two positions up to {mm:.0f} mm apart (sform and qform); the sform was used.",
        "{file} 给出两种位置，相差最多 {mm:.0f} 毫米（sform 与 qform）；采用 sform。",
    ),
    "volume-unoriented": (
        "{file} does not state its orientation: left and right, front and back are assumed, not read.",
        "{file} 未注明方位：左右和前后均为假定，而非读取。",
    ),
    "volume-unoriented-itk": (
        "{file} does not state its orientation in the patient: columns are assumed to run to the left, rows to the "
        "back and slices to the head.",
        "{file} 未注明患者方位：假定列向左、行向后、层面向头侧。",
    ),
    "volumes-oriented-and-not": (
        "In {folder}, {file} does not state its orientation although {other} does, so left and right may differ "
        "between them: convert the original images of both again.",
        "{folder} 中 {file} 未注明方位，而 {other} 已注明，两者左右可能不一致：请由原始影像重新转换全部文件。",
    ),
    "volume-sheared": (
        "The voxel grid of {file} is sheared: resample it to a right-angled grid.",
        "{file} 的体素网格是倾斜的（轴不互相垂直）：请重采样为直角网格。",
    ),
    # ---- names: which image is which --------------------------------------------------------------------
    "volumes-unnamed": (
        "No file in {folder} carries T1, T1C, T2 or FLAIR in its name (found {names}): rename the volumes.",
        "{folder} 中没有文件名含 T1、T1C、T2 或 FLAIR 的文件（找到 {names}）：请重命名容积文件。",
    ),
    "volumes-channels-unnamed": (
        "The files in {folder} are numbered by channel ({names}), and nothing says which channel is which sequence: put "
        "the data set's dataset.json beside or above them, or name the files by T1, T1C, T2 and FLAIR.",
        "{folder} 中的文件按通道编号（{names}），无法得知各通道对应哪个序列："
        "请将数据集的 dataset.json 放在同一文件夹或上一级文件夹，或在文件名中写明 T1、T1C、T2、FLAIR。",
    ),
    "volumes-two-of-one": (
        "Both {one} and {other} in {folder} are {sequence} by their names: two patients or a repeat may be mixed, keep "
        "one file of each in a patient's folder.",
        "{folder} 中的 {one} 和 {other} 按文件名都是 {sequence}：可能混入了另一名患者或重复扫描，每个序列请只保留一个文件。",
    ),
    "volumes-two-masks": (
        "Both {one} and {other} in {folder} are a lesion mask by their names: two patients or a repeat may be mixed, "
        "keep one file of each in a patient's folder.",
        "{folder} 中的 {one} 和 {other} 按文件名都是病灶掩膜：可能混入了另一名患者或重复勾画，请只保留一个文件。",
    ),
    "volumes-two-patients": (
        "{one} and {other} in {folder} are two patients' by their names: give every patient a folder of their own.",
        "{folder} 中的 {one} 和 {other} 按文件名属于两名患者：请为每名患者单独建立文件夹。",
    ),
    "bids-derivatives": (
        "{folder} has images in several derivatives ({names}) and none of its own: give one of these folders.",
        "{folder} 本身没有图像，而在多个 derivatives 文件夹中有图像（{names}）：请选择其中一个文件夹。",
    ),
    "dataset-unreadable": (
        "{file} is no description of a data set that can be read: copy it again.",
        "{file} 不是可读取的数据集说明文件：请重新复制。",
    ),
    "dataset-many-cases": (
        "{folder} holds {count} patients: give one of them, such as {case}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {case}。",
    ),
    "dataset-no-channel": (
        "{file} does not name channel {channel}, which {volume} is: complete its channel_names.",
        "{file} 未说明通道 {channel}（文件 {volume}）：请补全其中的 channel_names。",
    ),
    "dataset-channel-twice": (
        "{file} names two channels {sequence}: correct its channel_names.",
        "{file} 中有两个通道都写为 {sequence}：请更正其中的 channel_names。",
    ),
    "dataset-no-sequence": (
        "None of the channels in {file} is a T1, T1C, T2 or FLAIR (found {names}): correct its channel_names.",
        "{file} 中没有通道是 T1、T1C、T2 或 FLAIR（找到 {names}）：请更正其中的 channel_names。",
    ),
    "dataset-labels-unknown": (
        "The labels in {file} do not say which of them is the lesion; the mask was not read.",
        "{file} 的标签未说明哪一个是病灶，未读取掩膜。",
    ),
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    "examination-chosen": (
        "The patient has {count} examinations; number {number} in time ({name}) was read, the earliest before surgery that "
        "has the sequences needed; not read: {others}.",
        "该患者有 {count} 次检查；读取的是按时间第 {number} 次（{name}），即手术前序列齐全的最早一次；未读取：{others}。",
    ),
    "examination-number": (
        "{count} examinations were found; number {number} in time was read, the earliest before surgery that has the "
        "sequences needed.",
        "找到 {count} 次检查；读取的是按时间第 {number} 次，即手术前序列齐全的最早一次。",
    ),
    "examination-after-surgery": (
        "The examination read ({name}) was taken during or after surgery by its own words; the markers are meant for "
        "images before surgery.",
        "所读取的检查（{name}）按其描述为术中或术后检查；标志物预测仅适用于术前图像。",
    ),
    "examinations-incomplete": (
        "No single examination in {folder} has the sequences needed, only several together ({contents}): sequences of "
        "different examinations are not mixed, export one complete examination.",
        "{folder} 中没有一次检查具备所需的全部序列，只有多次检查合起来才齐全（{contents}）："
        "不会混用不同检查的序列，请导出一次完整的检查。",
    ),
    "examinations-undated": (
        "{folder} holds {count} complete examinations without a date ({names}), so the one before surgery cannot be told: "
        "keep that one alone.",
        "{folder} 中有 {count} 次序列完整但没有日期的检查（{names}），无法判断哪一次是术前检查：请只保留术前的一次。",
    ),
    "dicom-damaged": (
        "{file} is damaged or no DICOM file: copy or export it again.",
        "{file} 已损坏或不是 DICOM 文件：请重新复制或导出。",
    ),
    "dicom-passed-over": (
        "{count} DICOM files could not be read and were passed over ({names}); the series used are whole without them.",
        "有 {count} 个 DICOM 文件无法读取，已跳过（{names}）；所用序列不缺少图像。",
    ),
    "dicom-no-mr": (
        "No MR images among the DICOM files in {folder} (found {found}): export the MRI.",
        "{folder} 的 DICOM 文件中没有 MR 图像（找到 {found}）：请导出 MRI。",
    ),
    "dicom-no-sequence": (
        "None of the MR series in {folder} is a T1, T1C, T2 or FLAIR (found {found}): export these.",
        "{folder} 的 MR 序列中没有 T1、T1C、T2 或 FLAIR（找到 {found}）：请导出这些序列。",
    ),
    "dicom-two-ids": (
        "{folder} holds files of two patients (different ids in {one} and {other}): give every patient a folder of their "
        "own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者编号不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-names": (
        "{folder} holds files of two patients (different names in {one} and {other}): give every patient a folder of "
        "their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者姓名不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-birth-dates": (
        "{folder} holds files of two patients (different birth dates in {one} and {other}): give every patient a folder "
        "of their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的出生日期不同）：请为每名患者单独建立文件夹。",
    ),
    "series-candidates": (
        "{count} series look like {sequence}; read: {name}, which {why}.",
        "有 {count} 个序列看起来是 {sequence}；读取的是“{name}”，因为它{why}。",
    ),
    "series-original": ("is an original, not derived from other images", "是原始图像，而非由其他图像重建"),
    "series-complete": ("has no missing slices", "没有缺失层面"),
    "series-axial": ("was acquired axially", "为横断位采集"),
    "series-covers-more": ("covers more of the head", "覆盖头部的范围更大"),
    "series-more-slices": ("has more slices", "层面更多"),
    "series-evened-out": ("was evened out for the coil", "经过线圈均匀性校正"),
    "series-later": ("was acquired later", "采集时间更晚"),
    "series-equal": ("equals the other in every respect but its UID", "除 UID 外与另一序列完全相同"),
    "series-copies": (
        "{sequence}: {count} series have the same pixels as another under new numbers, and were left out as copies.",
        "{sequence}：有 {count} 个序列与另一序列像素完全相同、仅编号不同，作为副本已略去。",
    ),
    "series-unknown": (
        "Series '{name}' was not used: {reason}",
        "未使用序列“{name}”：{reason}",
    ),
    "series-coloured": ("its images are in colour.", "其图像为彩色。"),
    "contrast-doubt": (
        "{count} T1 series were taken alike at different times and nothing says which is after contrast medium: check, "
        "and say so in the series table.",
        "有 {count} 个 T1 序列参数相同、采集时间不同，无法得知哪一个是增强后：请核对，并在序列表中注明。",
    ),
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    "dicom-undecodable": (
        "The pixels of {file} cannot be decoded ({why}): export it again, uncompressed.",
        "无法解码 {file} 的像素（{why}）：请以未压缩格式重新导出。",
    ),
    "cut-short-or-damaged": ("cut short or damaged", "文件不完整或已损坏"),
    "dicom-size": (
        "{file} does not hold one image of {size} pixels as its header says: export the original series.",
        "{file} 的像素与其头信息所述的 {size} 不符：请导出原始序列。",
    ),
    "dicom-unstated": (
        "{file} lacks the attribute {attribute}, and without it its greys may be read wrongly: export the original "
        "series, or keep this attribute when anonymising.",
        "{file} 缺少属性 {attribute}，灰度可能被误读：请导出原始序列，或在匿名化时保留该属性。",
    ),
    "dicom-inferred": (
        "{kind}: the attribute {attribute} is missing in its files; its greys are taken for the usual ones (small "
        "values dark).",
        "{kind}：文件缺少属性 {attribute}，按常规灰度（数值小为暗）读取。",
    ),
    "dicom-photometric": (
        "{file} states PhotometricInterpretation {photometric} with {samples} samples per pixel, which is no grey "
        "MR image: export the original series.",
        "{file} 的 PhotometricInterpretation 为 {photometric}、每像素 {samples} 个采样，不是灰度 MR 图像："
        "请导出原始序列。",
    ),
    "dicom-coloured": (
        "{file} is a colour image: export the original grey series.",
        "{file} 是彩色图像：请导出原始灰度序列。",
    ),
    "dicom-bits": (
        "{file} states {stored} stored bits up to bit {high} in {allocated} (BitsStored, HighBit, BitsAllocated), "
        "which cannot be: export the original series.",
        "{file} 的 BitsStored {stored}、HighBit {high} 与 BitsAllocated {allocated} 相互矛盾：请导出原始序列。",
    ),
    "dicom-bits-beyond": (
        "{file} holds values beyond its {bits} stored bits (BitsStored, HighBit), so the header or the pixels are "
        "wrong: export the original series.",
        "{file} 的像素值超出其 {bits} 位存储位（BitsStored、HighBit），头信息或像素有误：请导出原始序列。",
    ),
    "dicom-depths-differ": (
        "{one} stores its greys in {one_bits} bits and {other} of the same series in {other_bits}, so they cannot be "
        "compared: export the original series.",
        "同一序列中 {one} 为 {one_bits} 位而 {other} 为 {other_bits} 位，灰度无法比较：请导出原始序列。",
    ),
    "dicom-lut": (
        "{file} has a table of greys ({attribute}) that cannot be applied: export the original series.",
        "{file} 的灰度查找表（{attribute}）无法应用：请导出原始序列。",
    ),
    "dicom-scaling": (
        "{file} has no usable RescaleSlope and RescaleIntercept but other slices of its series have, so their greys "
        "cannot be compared: export the original series.",
        "{file} 没有可用的 RescaleSlope 和 RescaleIntercept，而同一序列的其他层面有，灰度无法比较：请导出原始序列。",
    ),
    "dicom-scaling-unusable": (
        "{kind}: RescaleSlope or RescaleIntercept of its files is no usable number; the stored values are read.",
        "{kind}：文件的 RescaleSlope 或 RescaleIntercept 不是有效数值，按存储值读取。",
    ),
    # ---- lesion masks -----------------------------------------------------------------------------------
    "mask-oedema": (
        "Label {label:g} of the mask {file} is taken for oedema and is no lesion here.",
        "掩膜 {file} 的标签 {label:g} 视为水肿，不计入病灶。",
    ),
    "mask-not-numbers": (
        "The mask {file} has {count} voxels that are not numbers (NaN or infinite): save it again as 0 and 1.",
        "掩膜 {file} 中有 {count} 个体素不是数值（NaN 或无穷大）：请重新保存为 0 和 1。",
    ),
    "mask-fractions": (
        "The mask {file} holds fractions ({low:.3g} to {high:.3g}), such as probabilities, not labels: cut it at a "
        "threshold and save it as 0 and 1.",
        "掩膜 {file} 的值为小数（{low:.3g} 至 {high:.3g}），如概率，而非标签：请按阈值二值化并保存为 0 和 1。",
    ),
    "mask-labels": (
        "The mask {file} has values that are no BraTS labels ({labels}): give a mask of 0 and 1.",
        "掩膜 {file} 的值不是 BraTS 标签（{labels}）：请提供仅含 0 和 1 的掩膜。",
    ),
    # ---- tables and labels ------------------------------------------------------------------------------
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    "sequence-missing": (
        "{folder}: the sequence {missing} is missing (found: {found}); add it, or choose a model that does not need it.",
        "{folder}：缺少 {missing} 序列（已找到：{found}）；请补充该序列，或选择不需要它的模型。",
    ),
    "field-of-no-head": (
        "{file} shows a field of {field} mm (voxels of {steps} mm), which no image of a head has: check the voxel size "
        "and its units.",
        "{file} 的视野为 {field} 毫米（体素 {steps} 毫米），不可能是头部影像：请核对体素大小及其单位。",
    ),
    "brain-not-found": (
        "No brain was found in the image ({reason}); is this an axial head MRI?",
        "影像中未找到脑组织（{reason}）；这是横断面头部磁共振吗？",
    ),
    "brain-too-small": (
        "Only {ml:.0f} ml of brain were found in the image; is this a whole axial head MRI?",
        "影像中仅找到 {ml:.0f} 毫升脑组织；这是完整的横断面头部磁共振吗？",
    ),
    "brain-of-nobody": (
        "The brain in {file} would be {ml:.0f} ml large ({extent} mm), which nobody's is: check the voxel size ({steps} "
        "mm) and its units.",
        "{file} 中的脑体积将达 {ml:.0f} 毫升（{extent} 毫米），不可能属实：请核对体素大小（{steps} 毫米）及其单位。",
    ),
    "brain-small": (
        "Only {ml:.0f} ml of brain were found, less than an adult has: check that the whole head is shown and that the "
        "voxel size ({steps} mm) is right; areas and volumes depend on it.",
        "仅找到 {ml:.0f} 毫升脑组织，少于成人脑体积：请核对影像是否包含整个头部以及体素大小（{steps} 毫米）是否正确，"
        "面积和体积取决于此。",
    ),
    "brain-partly-shown": (
        "{sequence} shows only {percent:.0f} % of the brain ({part} is missing); what it does not show was not examined.",
        "{sequence} 仅覆盖 {percent:.0f} % 的脑组织（缺少{part}）；未覆盖的部分未被检查。",
    ),
    "brain-cut": (
        "All images end within the brain: {part} is missing and was not examined.",
        "所有影像均在脑内终止：缺少{part}，该部分未被检查。",
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
    "brain-all": ("everything", "全部"),
    "skull-gone": (
        "The images came without a skull; skull stripping was left out.",
        "影像不含颅骨，未作去颅骨处理。",
    ),
    "skull-gone-in-some": (
        "{sequences} came without a skull and the others with one; the brain was taken from {sequences}.",
        "{sequences} 不含颅骨，其余序列含颅骨；脑区取自 {sequences}。",
    ),
    "slices-empty": (
        "{name} shows nothing in slice {slices} although brain lies there (one grey value in all of it, {file}): "
        "export the series again.",
        "{name} 的层面 {slices} 位于脑内却没有图像（整层为同一灰度，{file}）：请重新导出该序列。",
    ),
    "slices-empty-at-ends": (
        "{name} shows nothing in slice {slices}, at the end of what it shows, although brain lies there; that part was "
        "not examined.",
        "{name} 的末端层面 {slices} 位于脑内却没有图像；该部分未被检查。",
    ),
    "slices-background": (
        "{name}: slice {slices} holds one grey value and is taken for background.",
        "{name}：层面 {slices} 全部为同一灰度，按背景处理。",
    ),
    "voxels-missing": (
        "{name} has voxels without a grey value (not a number, or transparent) within the brain, in slice {slices} "
        "({file}): export or convert it again.",
        "{name} 的脑内有体素没有灰度值（非数值或透明），位于层面 {slices}（{file}）：请重新导出或转换。",
    ),
    "brain-of-one-grey": (
        "{name} has one single grey value in the whole brain: check the exported series.",
        "{name} 在整个脑内只有一个灰度值：请检查导出的序列。",
    ),
    "not-aligned": (
        "Two sequences could not be aligned: they show different places, or one has fewer than four slices; check that "
        "they are whole axial series of one patient.",
        "两个序列无法配准：它们显示不同部位，或其中一个少于四层；请确认它们是同一患者完整的轴位序列。",
    ),
    "brain-in-no-slice": (
        "No slice shows enough brain (8 cm2); is this an axial head MRI?",
        "没有任何层面显示足够的脑组织（8 平方厘米）；这是横断面头部磁共振吗？",
    ),
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    "no-lesion-in-part": (
        "No lesion was found in the {percent:.0f} % of the brain that the images show; the rest was not examined, and no "
        "marker is predicted.",
        "在影像所覆盖的 {percent:.0f} % 脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
    ),
    "no-lesion-in-part-shown": (
        "No lesion was found in the part of the brain that the images show; the rest was not examined, and no marker is "
        "predicted.",
        "在影像所覆盖的部分脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
    ),
    # ---- progress ---------------------------------------------------------------------------------------
    # ---- weights and models -----------------------------------------------------------------------------
    "weights-card-unknown": (
        "{path}: the weights file states something that this gliomark does not know ({reason}); "
        "update gliomark, or train the model anew.",
        "{path}：权重文件中有当前 gliomark 版本无法识别的内容（{reason}）；请更新 gliomark，或重新训练模型。",
    ),
    "marker-too-few-patients": (
        "{marker}: {patients} patients with a label and all sequences are too few to learn from; "
        "add patients to the cohort.",
        "{marker}：有标签且序列齐全的患者仅 {patients} 例，不足以训练；请在队列中增加患者。",
    ),
    "marker-no-lesions": (
        "Too few patients have an outlined lesion to learn from ({fitted} to fit on, {stopping} to stop by): "
        "outline more patients, or give the label of more.",
        "有病灶轮廓、可供训练的患者过少（拟合 {fitted} 例，早停 {stopping} 例）：请勾画更多患者，或补充更多标签。",
    ),
    "marker-not-measured": (
        "{title}: it was not measured how well the model does on patients it never saw, so no level is named.",
        "{title}：未测得模型在未参与训练的患者中的表现，因此不给出分级。",
    ),
    "marker-better-than-chance": (
        "{title}: AUC {auc:.2f} (95 % interval {low:.2f} to {high:.2f}) on {patients} patients the model never saw; "
        "levels are named.",
        "{title}：在 {patients} 例未参与训练的患者中，AUC 为 {auc:.2f}（95% 置信区间 {low:.2f}–{high:.2f}）；"
        "给出分级。",
    ),
    "marker-no-better-than-chance": (
        "{title}: on {patients} patients it never saw, the model was not shown to be better than chance (AUC "
        "{auc:.2f}, 95 % interval {low:.2f} to {high:.2f}, which reaches 0.5), so no level is named.",
        "{title}：在 {patients} 例未参与训练的患者中，未能证明模型优于随机猜测（AUC {auc:.2f}，"
        "95% 置信区间 {low:.2f}–{high:.2f}，未完全高于 0.5），因此不给出分级。",
    ),
    # ---- results ----------------------------------------------------------------------------------------
    # ---- uploads and server -----------------------------------------------------------------------------
}  # fmt: skip


class Message(str):
    """One sentence: its English text, with the code and the parameters that it was made from."""

    code: str
    parameters: Mapping[str, Any]

    def __new__(cls, code: str, parameters: Mapping[str, Any]) -> Message:
        """Raises KeyError for an unknown code or a parameter that the text needs and did not get."""
        self = super().__new__(cls, MESSAGES[code][0].format_map(parameters))
        self.code, self.parameters = code, dict(parameters)
        return self

    def __reduce__(self) -> tuple[type[Message], tuple[str, Mapping[str, Any]]]:
        """Code and parameters outlast pickling and copying."""
        return Message, (self.code, self.parameters)


def message(code: str, /, **parameters: Any) -> Message:
    """The sentence of this code with these parameters filled in."""
    return Message(code, parameters)


def render(text: str, language: Language) -> str:
    """A message in the reader's language; any other text, such as a file's own words, as it is."""
    if not isinstance(text, Message):
        return text
    filled = {name: _render_value(value, language) for name, value in text.parameters.items()}
    return MESSAGES[text.code][LANGUAGES.index(language)].format_map(filled)


def to_record(text: str) -> dict[str, Any]:
    """A sentence as JSON: ``text`` in English and, for a message, ``code`` and ``parameters``."""
    record: dict[str, Any] = {"text": str(text)}
    if isinstance(text, Message):
        parameters = {name: _to_json(value) for name, value in text.parameters.items()}
        record |= {"code": text.code, "parameters": parameters}
    return record


def from_record(record: Mapping[str, Any]) -> str:
    """The sentence of ``to_record``; its English text alone where this version does not know the code."""
    try:
        parameters = {name: _from_json(value) for name, value in record["parameters"].items()}
        return Message(record["code"], parameters)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return str(record["text"])


def _render_value(value: Any, language: Language) -> Any:
    return render(value, language) if isinstance(value, Message) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, Message):
        return to_record(value)
    return str(value) if isinstance(value, PurePath) else value


def _from_json(value: Any) -> Any:
    return from_record(value) if isinstance(value, Mapping) else value
