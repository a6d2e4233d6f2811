"""Every sentence that a person may read, as data: a code with its parameters, rendered in English or Chinese.

``message("sequence-missing", patient=..., ...)`` makes one. It is a ``str``, its English text, so that errors,
logs and tables can use it as it is; a report, a window or a page renders it in its reader's language with
``render``. Across a process or a network it travels as its code and parameters (``to_record``,
``from_record``), never as a sentence to be recognised again.

The texts are format strings: ``{count}``, ``{size:.3g}``. A parameter may be a message itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# By section, as the rooms lie; code: (English, Chinese). What is wrong, where, and what to do.
MESSAGES: Mapping[str, tuple[str, str]] = {
    # ---- reading in a process of its own ----------------------------------------------------------------
    "reading-crashed": (
        "{subject}: reading it ended the reading process ({how}), at {file}: this file is damaged or harmful; export it "
        "again, or leave it out.",
        "{subject}：读取时读取进程异常终止（{how}），停在{file}：该文件可能已损坏或有害；请重新导出，或去除该文件。",
    ),
    "reading-ended-garbled": ("its answer was not understood", "返回结果无法识别"),
    "reading-ended-server": (
        "Reading it has ended the server {tries} times: it is not read again.",
        "读取该检查已导致服务器异常终止 {tries} 次：不再读取。",
    ),
    "reading-ended-signal": ("signal {signal}", "信号 {signal}"),
    "reading-ended-status": ("status {status}", "退出码 {status}"),
    "reading-limit-unfit": (
        "{name}={given} is no positive number: correct or remove this environment variable.",
        "{name}={given} 不是正数：请更正或删除该环境变量。",
    ),
    "reading-memory": (
        "{subject}: reading it takes more than {gigabytes:.3g} GB of memory, at {file}: this file unpacks to far more than "
        "an image, or claims to; export it again, or leave it out.",
        "{subject}：读取所需内存超过 {gigabytes:.3g} GB，停在{file}：该文件解压后或声明的数据量远超正常图像；"
        "请重新导出，或去除该文件。",
    ),
    "reading-no-file": ("a file that is not known", "未知文件"),
    "reading-slow": (
        "{subject}: reading it took too long and was stopped, at {file}: this file is damaged or harmful, or the disk "
        "does not answer; export it again, or leave it out.",
        "{subject}：读取时间过长，已停止，停在{file}：该文件可能已损坏或有害，或磁盘无响应；请重新导出，或去除该文件。",
    ),
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
    "picture-one-number": (
        "{one} and {other} in {folder} have one number, so the order of the slices is not known: remove or rename one.",
        "{folder} 中 {one} 与 {other} 编号相同，无法确定层面顺序：请删除或重命名其中一个。",
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
        "{file} is partly transparent, so its greys depend on what lies behind: save it without transparency.",
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
        "图片不含毫米信息：假定像素为 {in_plane:.4g} × {in_plane:.4g} mm、层间距 {step:.3g} mm，"
        "因此面积和体积为估计值。",
    ),
    "folder-missing": ("{folder} does not exist: check the path.", "{folder} 不存在：请检查路径。"),
    "folder-is-file": ("{folder} is a file: give the patient's folder.", "{folder} 是文件：请给出患者的文件夹。"),
    "folder-unlisted": (
        "{folder} cannot be listed ({reason}): check the path and its permissions.",
        "无法读取文件夹 {folder}（{reason}）：请检查路径和权限。",
    ),
    "folder-empty": (
        "{folder} is empty: give a patient's folder with pictures as <patient>/<sequence>/<slice>.jpg, volumes "
        "with T1, "
        "T1C, T2 or FLAIR in their name, or DICOM.",
        "{folder} 是空文件夹：请给出患者的文件夹，内含按 <患者>/<序列>/<层面>.jpg 存放的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-no-images": (
        "{folder} holds no patient's images: give pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, "
        "T1C, T2 "
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
    "folder-links": (
        "{folder} holds no images but links or special files, which are not followed (such as {name}): copy the image "
        "files themselves into it (git-annex and DataLad: unlock them).",
        "{folder} 中没有影像文件，只有不会被跟随的链接或特殊文件（如 {name}）：请将影像文件本身复制到该文件夹"
        "（git-annex、DataLad：请先 unlock）。",
    ),
    "links-passed-over": (
        "{count} links or special files in the folder were passed over ({names}): only files that lie in it are read.",
        "文件夹中有 {count} 个链接或特殊文件未读取（{names}）：只读取位于该文件夹内的文件。",
    ),
    "picture-huge": (
        "{file} is a picture of more than {most:.0f} million pixels, larger than any MR image: export it again in its "
        "original size.",
        "{file} 超过 {most:.0f} 百万像素，大于任何磁共振影像：请以原始尺寸重新导出。",
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
        "{file} is not one 3-D volume (its size is {sizes}): give a single volume of all slices; where the "
        "fourth axis holds the sequences, split its channels into one file each, named T1, T1C, T2, FLAIR.",
        "{file} 不是单个三维容积（大小为 {sizes}）：请提供含全部层面的单个容积；若第四维为各序列（通道），"
        "请拆分为每个序列一个文件，并命名为 T1、T1C、T2、FLAIR。",
    ),
    "volume-unit": (
        "{file} gives its voxel size in a unit that is not known ({unit}): convert the original images again, in mm.",
        "{file} 的体素大小所用单位无法识别（{unit}）：请由原始影像以 mm 为单位重新转换。",
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
        "{file} 未注明方位：左右和前后方向为假定，并非由文件读取。",
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
    "volume-header": (
        "The header of {file} cannot be right ({stated}): convert the original images again.",
        "{file} 的头信息不可能正确（{stated}）：请由原始影像重新转换。",
    ),
    "volume-header-endless": (
        "The header of {file} does not end within {most} kB, so it is damaged or no image volume: convert the original "
        "images again.",
        "{file} 的头信息超过 {most} kB 仍未结束，文件已损坏或不是影像容积：请由原始影像重新转换。",
    ),
    "volume-short": (
        "{file} is damaged: its header states {needed} bytes of image values and {held} bytes are there; copy or "
        "convert it again.",
        "{file} 已损坏：头信息注明影像数据为 {needed} 字节，而文件中只有 {held} 字节；请重新拷贝或转换。",
    ),
    "volume-data-outside": (
        "{file} names a data file outside its own folder, or a link ({data}): put both files into one folder, or save "
        "the volume as one file.",
        "{file} 指向的数据文件不在其所在文件夹内，或为链接（{data}）：请将两个文件放入同一文件夹，或另存为单个文件。",
    ),
    "volume-data-missing": (
        "{file} names the data file {data}, which is not there: copy both files into one folder.",
        "{file} 指向的数据文件 {data} 不存在：请将两个文件拷贝到同一文件夹。",
    ),
    "volume-data-list": (
        "{file} is put together from several data files ({data}): save the volume as one file.",
        "{file} 由多个数据文件组成（{data}）：请将该容积另存为单个文件。",
    ),
    # ---- names: which image is which --------------------------------------------------------------------
    "volumes-unnamed": (
        "No file in {folder} carries T1, T1C, T2 or FLAIR in its name (found {names}): rename the volumes.",
        "{folder} 中没有文件名含 T1、T1C、T2 或 FLAIR 的文件（找到 {names}）：请重命名容积文件。",
    ),
    "volumes-channels-unnamed": (
        "The files in {folder} are numbered by channel ({names}), and nothing says which channel is which "
        "sequence: put "
        "the data set's dataset.json beside or above them, or name the files by T1, T1C, T2 and FLAIR.",
        "{folder} 中的文件按通道编号（{names}），无法得知各通道对应哪个序列："
        "请将数据集的 dataset.json 放在同一文件夹或上一级文件夹，或在文件名中写明 T1、T1C、T2、FLAIR。",
    ),
    "volumes-two-of-one": (
        "Both {one} and {other} in {folder} are {sequence} by their names: two patients or a repeat may be mixed, keep "
        "one file of each in a patient's folder.",
        "{folder} 中的 {one} 和 {other} 按文件名都是 {sequence}：可能混入了另一名患者或重复扫描，"
        "每个序列请只保留一个文件。",
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
    "volumes-other-patient": (
        "{file} in {folder} is of another patient than {patient} by its name: check whose images these are, and name "
        "file and folder alike.",
        "{folder} 中的 {file} 按文件名不属于患者 {patient}：请核对图像属于哪位患者，并使文件名与文件夹名一致。",
    ),
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    "examination-chosen": (
        "The patient has {count} examinations; number {number} in time ({name}) was read, the earliest before "
        "surgery that "
        "has the sequences needed; not read: {others}.",
        "该患者有 {count} 次检查；读取的是按时间第 {number} 次（{name}），即手术前序列齐全的最早一次；未读取："
        "{others}。",
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
        "{folder} holds {count} complete examinations and nothing says which came first ({names}), so the one before "
        "surgery cannot be told: keep that one alone.",
        "{folder} 中有 {count} 次序列完整的检查，无法得知先后（{names}），"
        "因此不能判断哪一次是术前检查：请只保留术前的一次。",
    ),
    "dicom-damaged": (
        "{file} is damaged or no DICOM file: copy or export it again.",
        "{file} 已损坏或不是 DICOM 文件：请重新复制或导出。",
    ),
    "dicom-passed-over": (
        "{count} DICOM files could not be read and were passed over ({names}); the series used are whole without them.",
        "有 {count} 个 DICOM 文件无法读取，已跳过（{names}）；所用序列不缺少图像。",
    ),
    "dicom-not-needed": (
        "{sequence} was not used, as a file of it is damaged ({file}); the other sequences suffice.",
        "{sequence} 有文件已损坏（{file}），未使用该序列；其余序列已足够。",
    ),
    "dicom-destroyed": (
        "{count} files beside the DICOM images hold no image ({names}), perhaps a slice at the end of the stack that "
        "was lost: compare the number of slices with the scanner's.",
        "DICOM 图像旁有 {count} 个文件不含图像（{names}），可能是序列首尾丢失的层面：请与原始扫描核对层数。",
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
        "{folder} holds files of two patients (different ids in {one} and {other}): give every patient a folder of "
        "their "
        "own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者编号不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-names": (
        "{folder} holds files of two patients (different names in {one} and {other}): give every patient a folder of "
        "their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者姓名不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-birth-dates": (
        "{folder} holds files of two patients (different birth dates in {one} and {other}): give every patient a "
        "folder "
        "of their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的出生日期不同）：请为每名患者单独建立文件夹。",
    ),
    "series-candidates": (
        "{count} series look like {sequence}; read: {name}, which {why}.",
        "有 {count} 个序列看起来是 {sequence}；读取的是“{name}”，因为它{why}。",
    ),
    "series-original": ("is an original, not derived from other images", "是原始图像，而非由其他图像重建"),
    "series-complete": ("has no missing slices", "没有缺失层面"),
    "series-axial": ("was acquired axially", "为轴位采集"),
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
    "contrast-doubt": (
        "{count} T1 series were taken alike at different times and nothing says which is after contrast medium: check, "
        "and say so in the series table.",
        "有 {count} 个 T1 序列参数相同、采集时间不同，无法得知哪一个是增强后：请核对，并在序列表中注明。",
    ),
    "series-table-twice": (
        "The edited table uses two series of one patient as {sequence} ({one} and {other}); leave one.",
        "修改后的序列表将同一患者的两个序列都用作 {sequence}（{one} 和 {other}）；请只保留一个。",
    ),
    "series-table-unknown": (
        "{table}: the series {series} is not in the folder; edit the table of this folder.",
        "{table}：序列 {series} 不在该文件夹中；请修改与该文件夹对应的序列表。",
    ),
    "series-table-use": (
        "{table}: '{use}' in column use of series {series} must be T1, T1C, T2, FLAIR, auto or blank.",
        "{table}：序列 {series} 的 use 列为“{use}”，只能填写 T1、T1C、T2、FLAIR、auto 或留空。",
    ),
    "patient-id-blank": (
        "the PatientID is blank; give the series one in the column patient_id",
        "患者编号（PatientID）为空；请在 patient_id 列中为该序列填写编号",
    ),
    "patient-id-names": (
        "{count} different names share this PatientID; give each person an id in the column patient_id",
        "该患者编号（PatientID）下有 {count} 个不同的姓名；请在 patient_id 列中为每名患者填写各自的编号",
    ),
    "patient-id-birth-dates": (
        "{count} different birth dates share this PatientID; give each person an id in the column patient_id",
        "该患者编号（PatientID）下有 {count} 个不同的出生日期；请在 patient_id 列中为每名患者填写各自的编号",
    ),
    "archive-unreadable": (
        "{file} cannot be unpacked ({reason}); unpack it yourself.",
        "无法解压 {file}（{reason}）；请自行解压。",
    ),
    "archive-huge": (
        "{file} would grow to {gigabytes:.0f} GB; unpack it yourself if that is right.",
        "{file} 解压后将达 {gigabytes:.0f} GB；若确实如此，请自行解压。",
    ),
    "series-coloured": ("its images are in colour.", "其图像为彩色。"),
    "dicom-frames": (
        "{file} states {count} images of its size, more than it can hold or any MR series has: copy or export it again.",
        "{file} 注明含 {count} 帧该尺寸的图像，超出文件所能容纳或任何磁共振序列的数量：请重新复制或导出。",
    ),
    "recognised-sentence": ("{clause}.", "{clause}。"),
    "recognised-and": ("{clause}; {more}", "{clause}；{more}"),
    "recognised-class": ("SOP class {name} is no MR image", "SOP 类 {name} 不是磁共振影像"),
    "recognised-modality": ("Modality is {modality}, not MR", "设备类型（Modality）为 {modality}，不是 MR"),
    "recognised-burned-in": (
        "BurnedInAnnotation is YES: a picture of a screen or a colour map",
        "BurnedInAnnotation 为 YES：是屏幕截图或伪彩图",
    ),
    "recognised-colour": (
        "SamplesPerPixel says colour: a picture of a screen or a colour map",
        "SamplesPerPixel 表明为彩色：是屏幕截图或伪彩图",
    ),
    "recognised-image-type": (
        "ImageType or ComplexImageComponent says {marks}",
        "ImageType 或 ComplexImageComponent 标为 {marks}",
    ),
    "recognised-count": (
        "The series has {count} image, no stack of slices",
        "该序列只有 {count} 幅图像，不是多层图像",
    ),
    "recognised-body-part": ("BodyPartExamined is {part} ({words})", "检查部位（BodyPartExamined）为 {part}（{words}）"),
    "recognised-elsewhere": (
        "{source} names another part of the body ({words})",
        "{source} 写明是其他部位（{words}）",
    ),
    "recognised-b-value": ("Diffusion b-value is {value:g} s/mm2", "扩散 b 值为 {value:g} s/mm²"),
    "recognised-contrast": ("AcquisitionContrast is {contrast}", "AcquisitionContrast 为 {contrast}"),
    "recognised-time-series": (
        "Every place was taken {count} times: a time series",
        "每个层面采集了 {count} 次：是时间序列",
    ),
    "recognised-angiography": (
        "AngioFlag, TimeOfFlightContrast or PhaseContrast says YES",
        "AngioFlag、TimeOfFlightContrast 或 PhaseContrast 标为 YES，是血管成像",
    ),
    "recognised-scout": (
        "The series holds all three planes, {count} images of this one: a scout",
        "该序列含三个方位，本方位 {count} 幅：是定位像",
    ),
    "recognised-echoes": (
        "One gradient-echo series with {count} echoes: multi-echo T2* or a field map",
        "该梯度回波序列含 {count} 个回波：是多回波 T2* 或场图",
    ),
    "recognised-echo-planar": (
        "Echo-planar ({timing}), with {count} images of each place",
        "平面回波成像（{timing}），每个层面 {count} 幅",
    ),
    "recognised-words": ("{source} says {words}", "{source} 写明 {words}"),
    "recognised-no-words": ("no words name a weighting", "没有文字写明加权类型"),
    "recognised-sagittal": ("sagittal", "矢状位"),
    "recognised-coronal": ("coronal", "冠状位"),
    "recognised-thick": (
        "{source} is {plane}, slices {step:g} mm apart: too thick to be resliced to axial",
        "{source} 为{plane}，层间距 {step:g} mm：层面过厚，无法重组为轴位",
    ),
    "recognised-thick-unwritten": (
        "{source} is {plane}, slices of a step that is not written: too thick to be resliced to axial",
        "{source} 为{plane}，未写明层间距：按层面过厚处理，无法重组为轴位",
    ),
    "recognised-no-timing": ("no timing is written", "未写明时间参数"),
    "recognised-no-timing-first": ("No timing is written", "未写明时间参数"),
    "recognised-steady-state": ("steady state", "稳态进动序列"),
    "recognised-unknown-kind": ("unknown", "未知类型"),
    "recognised-timing": (
        "{timing}: timing of {kind}, and {said}",
        "{timing}：时间参数符合 {kind}，且{said}",
    ),
    "recognised-timing-silent": (
        "{timing}: this does not tell the weighting, and {said}",
        "{timing}：据此无法判断加权类型，且{said}",
    ),
    "recognised-density-but": (
        "{timing} is timing of PD, but {said}: they contradict each other",
        "{timing}：时间参数符合 PD，但 {said}，两者矛盾",
    ),
    "recognised-silent": ("{said}, and no timing is written", "{said}，且未写明时间参数"),
    "recognised-allowed": ("{said}, which {timing} allows", "{said}，与时间参数（{timing}）不矛盾"),
    "recognised-certain": (
        "{timing}: timing of {kind} without doubt, although {said}",
        "{timing}：时间参数明确为 {kind}，虽然 {said}",
    ),
    "recognised-although": (
        "{timing}: timing of {kind}, although {said}",
        "{timing}：时间参数为 {kind}，虽然 {said}",
    ),
    "recognised-against": (
        "{said}, but {timing} is timing of {kind}: they contradict each other",
        "{said}，但时间参数（{timing}）符合 {kind}：两者矛盾",
    ),
    "recognised-against-none": (
        "{said}, but {timing} is no timing of it: they contradict each other",
        "{said}，但时间参数（{timing}）与之不符：两者矛盾",
    ),
    "recognised-before-contrast": ("the words say before contrast", "文字写明为增强前"),
    "recognised-before-although": (
        "the words say before contrast, although ContrastBolusAgent is {agent}",
        "文字写明为增强前，虽然 ContrastBolusAgent 为 {agent}",
    ),
    "recognised-after-contrast": ("the words say after contrast", "文字写明为增强后"),
    "recognised-agent": ("ContrastBolusAgent is {agent}", "对比剂（ContrastBolusAgent）为 {agent}"),
    "recognised-no-contrast": ("nothing tells of contrast medium", "没有使用对比剂的记载"),
    "recognised-repeats": (
        "taken {count} times, which of them after contrast is not said",
        "采集了 {count} 次，未说明哪一次为增强后",
    ),
    "recognised-deidentified": (
        "de-identified without description or agent: T1 or T1C is not told",
        "已去标识化，没有序列描述和对比剂信息：无法区分 T1 与 T1C",
    ),
    "recognised-resliced": (
        "acquired {plane}ly in three dimensions, {step:g} mm apart, resliced to axial",
        "三维{plane}采集，层间距 {step:g} mm，已重组为轴位",
    ),
    "recognised-resliced-unwritten": (
        "acquired {plane}ly in three dimensions, resliced to axial",
        "三维{plane}采集，已重组为轴位",
    ),
    "recognised-derived": (
        "ImageType is DERIVED: used only where no original is there",
        "ImageType 为 DERIVED：仅在没有原始图像时使用",
    ),
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    "dicom-decoded-huge": (
        "The pixels of {file} take more memory than there is, or claim to: export it again, uncompressed.",
        "{file} 的像素解码所需内存超出可用内存（或其声明如此）：请以未压缩格式重新导出。",
    ),
    "dicom-inflated": (
        "{file} is deflated and unpacks to more than {megabytes:.0f} MB, more than any image: export it again, "
        "uncompressed.",
        "{file} 为压缩（deflate）文件，解压后超过 {megabytes:.0f} MB，远超任何图像：请以未压缩格式重新导出。",
    ),
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
    "dicom-place-missing": (
        "{file} does not state {attribute}, so its place in the patient is unknown: export the original series.",
        "{file} 缺少 {attribute}，无法确定其在患者体内的位置：请导出原始序列。",
    ),
    "dicom-place-wrong": (
        "{attribute} in {file} is not usable ({value}), so its place in the patient is unknown: export the original "
        "series.",
        "{file} 中的 {attribute} 无效（{value}），无法确定其在患者体内的位置：请导出原始序列。",
    ),
    "dicom-single-image": (
        "The series in {folder} has a single image: export the whole series.",
        "{folder} 中的序列只有一幅影像：请导出完整序列。",
    ),
    "dicom-not-uniform": (
        "The slices {one} and {other} in {folder} differ in size, spacing or orientation: export one uniform series.",
        "{folder} 中的层面 {one} 与 {other} 在大小、间距或方位上不一致：请导出一致的序列。",
    ),
    "dicom-repeats": (
        "{one} and {other} in {folder} show the same place with different pixels: the series holds repeats, export one "
        "image per place.",
        "{folder} 中的 {one} 与 {other} 位置相同但像素不同：该序列含重复扫描，请每个位置只导出一幅影像。",
    ),
    "dicom-one-place": (
        "All images in {folder} show the same place: export the whole series.",
        "{folder} 中所有影像位置相同：请导出完整序列。",
    ),
    "dicom-uneven": (
        "The slices are {step:.2f} mm apart but {gap:.2f} mm between {one} and {other} in {folder}: too many slices "
        "are missing or misplaced to be interpolated, export the whole series.",
        "层间距为 {step:.2f} 毫米，而 {folder} 中 {one} 与 {other} 之间为 {gap:.2f} 毫米：缺失或错位的层面过多，"
        "无法插值，请导出完整序列。",
    ),
    "dicom-tilted": (
        "The slices in {folder} are shifted sideways (tilted stack): export a straight one.",
        "{folder} 中的层面逐层侧移（机架倾斜）：请导出未倾斜的序列。",
    ),
    "dicom-interpolated": (
        "{kind}: slice {slices} of {count} was missing and was interpolated from its neighbours.",
        "{kind}：缺少第 {slices} 层（共 {count} 层），已由相邻层插值。",
    ),
    "dicom-resampled": (
        "{kind}: the slices were unevenly spaced (by up to {mm:.2f} mm) and were resampled to an even {step:.2f} mm.",
        "{kind}：层间距不均（最多相差 {mm:.2f} 毫米），已重采样为均匀的 {step:.2f} 毫米。",
    ),
    "dicom-order": (
        "{kind}: the slices' numbers and their positions contradict each other at {count} of {total} slices; the "
        "positions decided, check the order of the images.",
        "{kind}：{total} 层中有 {count} 层的编号与位置顺序矛盾；以位置为准，请核对影像顺序。",
    ),
    "dicom-copies": (
        "{kind}: {count} copies of other images were left out.",
        "{kind}：略去 {count} 幅重复图像。",
    ),
    "dicom-stacks": (
        "{kind}: its SeriesInstanceUID holds {count} stacks; one of them was read.",
        "{kind}：其 SeriesInstanceUID 含 {count} 组层面，读取了其中一组。",
    ),
    "dicom-duplicate-uid": (
        "{one} and {other} show different images but bear the same instance UID, so which one is meant is unknown: "
        "export the examination again, or remove the one that does not belong.",
        "{one} 与 {other} 的图像内容不同，但 SOP 实例 UID 相同，无法判断应使用哪一个：请重新导出该次检查，"
        "或移除其中不属于该检查的文件。",
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
    "mask-oriented-and-not": (
        "The mask {mask} cannot be laid on the images: {file} does not state its orientation although {other} does, so "
        "left and right may differ; save the mask with the geometry of the images.",
        "掩膜 {mask} 无法与影像对齐：{file} 未注明方位，而 {other} 已注明，左右可能不一致；"
        "请按影像的几何信息重新保存掩膜。",
    ),
    "mask-outside": (
        "The mask {file} lies outside every series of the patient ({sequences}): check that it is this patient's and "
        "that its geometry was not lost.",
        "掩膜 {file} 位于患者所有序列（{sequences}）之外：请核对是否属于该患者以及几何信息是否丢失。",
    ),
    "mask-elsewhere": (
        "The mask {file} has the size of {sequence} but lies up to {mm:.0f} mm away from it, so its geometry was lost: "
        "save it again with the geometry of the images it was drawn on.",
        "掩膜 {file} 的大小与 {sequence} 相同，但位置相差最多 {mm:.0f} 毫米，几何信息已丢失："
        "请按勾画所用影像的几何信息重新保存。",
    ),
    "mask-frame": (
        "The mask {file} was drawn in another frame of reference than the patient's images, so its place on them is "
        "unknown: give the images that it was drawn on.",
        "掩膜 {file} 所用的坐标参考系与患者影像不同，无法确定其位置：请提供勾画所用的影像。",
    ),
    "mask-files": ("the masks among the images", "影像中的掩膜文件"),
    "mask-damaged": (
        "{file} is a damaged DICOM file among the masks: copy or export it again.",
        "掩膜文件夹中的 {file} 是已损坏的 DICOM 文件：请重新拷贝或导出。",
    ),
    "mask-partly-outside": (
        "{percent:.0f}% of a lesion mask lies outside its series.",
        "病灶掩膜有 {percent:.0f}% 位于其序列之外。",
    ),
    "mask-on-no-grid": (
        "A lesion mask shares no series' grid; its millimetres are taken as the reference's.",
        "病灶掩膜与各序列网格均不一致；按其毫米坐标放置于参考序列。",
    ),
    "mask-folder": (
        "{file} does not lie in a folder named after one of the patient's sequences ({sequences}): put it into "
        "<patient>/<sequence>/.",
        "{file} 不在以患者序列（{sequences}）命名的文件夹中：请放入 <患者>/<序列>/。",
    ),
    "mask-slice-twice": (
        "{file} and {other} annotate one slice: keep one of them.",
        "{file} 与 {other} 标注同一层面：请只保留一个。",
    ),
    "mask-none": (
        "There is no lesion mask for {folder}: draw one, or leave the patient out.",
        "{folder} 没有病灶掩膜：请勾画，或排除该患者。",
    ),
    "regions-left-out": (
        "{count} of {total} drawn regions are no lesion by their names and are left out.",
        "{total} 个勾画区域中有 {count} 个按名称不是病灶，未采用。",
    ),
    "segmentation-damaged": (
        "{file} is a damaged DICOM segmentation, or states no positions: export it again.",
        "{file} 是已损坏的 DICOM 分割文件，或未给出位置：请重新导出。",
    ),
    "segmentation-no-lesion": (
        "No segment of {file} is a lesion by its name ({names}): name the segment of the enhancing and necrotic tumour "
        "'tumour'.",
        "{file} 中没有名称为病灶的分割（{names}）：请将强化及坏死肿瘤的分割命名为“肿瘤”。",
    ),
    "segmentation-no-step": (
        "{file} has one plane and states no slice thickness: export it again.",
        "{file} 仅有一个层面且未给出层厚：请重新导出。",
    ),
    "segmentation-crooked": (
        "The planes of {file} do not lie straight above each other: export one even stack.",
        "{file} 的各层面未对齐：请导出一组规则的层面。",
    ),
    "segmentation-empty": ("The segmentation is empty.", "分割为空。"),
    "segmentation-uneven": (
        "Its frames are unevenly spaced; the mask was brought to steps of {step:.3g} mm.",
        "分割的层面间距不均；掩膜已重采样为 {step:.3g} 毫米层距。",
    ),
    "contours-damaged": (
        "{file} is a damaged DICOM structure set: export it again.",
        "{file} 是已损坏的 DICOM 轮廓文件（RTSTRUCT）：请重新导出。",
    ),
    "contours-cut-short": (
        "{file} is damaged: a contour of {count} numbers does not have the points that it states; export it again.",
        "{file} 已损坏：某条轮廓的 {count} 个数值与其声明的点数不符；请重新导出。",
    ),
    "contours-not-numbers": (
        "{file} has contour points that are not numbers (NaN or infinite): export it again.",
        "{file} 的轮廓点不是数值（NaN 或无穷大）：请重新导出。",
    ),
    "contours-missing": (
        "{file} is damaged: it names the lesion '{name}' but holds no contours of it; export it again.",
        "{file} 已损坏：列有病灶“{name}”但没有其轮廓；请重新导出。",
    ),
    "contours-no-lesion": (
        "No region of {file} is a lesion by its name ({names}): name the region of the enhancing and necrotic tumour "
        "'GTV'.",
        "{file} 中没有名称为病灶的区域（{names}）：请将强化及坏死肿瘤的区域命名为“GTV”。",
    ),
    "contours-none": (
        "The lesion of {file} has no closed contour: draw it again, or leave it out.",
        "{file} 中的病灶没有闭合轮廓：请重新勾画，或删除该文件。",
    ),
    "contours-cover-nothing": (
        "The contours of {file} cover no voxel of the series they were read with: check that both belong to one "
        "patient.",
        "{file} 的轮廓未覆盖所用序列的任何体素：请核对两者是否属于同一患者。",
    ),
    "contours-off-plane": (
        "The contours of {file} do not lie in the slices of the series they were read with: give the series they were "
        "drawn on.",
        "{file} 的轮廓不在所用序列的层面上：请提供勾画所用的序列。",
    ),
    "contours-off-all": (
        "The contours of {file} lie in the slices of none of the patient's series ({sequences}): export the series "
        "that "
        "they were drawn on.",
        "{file} 的轮廓不在患者任何序列（{sequences}）的层面上：请导出勾画所用的序列。",
    ),
    "contours-beyond": (
        "The contours of {file} reach beyond the {slices} slices of the series they were read with: export the whole "
        "series.",
        "{file} 的轮廓超出所用序列的 {slices} 个层面：请导出完整序列。",
    ),
    "contours-gaps": (
        "{count} slice(s) between the first and the last contour carry none; they stay empty.",
        "首末轮廓之间有 {count} 个层面没有轮廓，保持为空。",
    ),
    # ---- tables and labels ------------------------------------------------------------------------------
    "table-no-file": (
        "{table} is a pipe, a socket or a device, no file: save the table as csv or xlsx first.",
        "{table} 是管道、套接字或设备，不是文件：请先将表格保存为 csv 或 xlsx。",
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
        "{table} is a web page or XML, not a table, whatever its name says: open it in a spreadsheet and save it "
        "as xlsx or CSV.",
        "{table} 的内容是网页或 XML，不是表格：请用电子表格软件打开后另存为 xlsx 或 CSV。",
    ),
    "table-damaged-workbook": (
        "{table} is a damaged workbook, or has no sheet with cells: save it again as xlsx or CSV.",
        "{table} 已损坏，或没有含数据的工作表：请重新另存为 xlsx 或 CSV。",
    ),
    "table-encoding": (
        "{table} is neither UTF-8 nor UTF-16 nor GB18030 text: save it as CSV UTF-8.",
        "{table} 不是 UTF-8、UTF-16 或 GB18030 编码的文本：请另存为“CSV UTF-8”。",
    ),
    "table-not-csv": (
        "{table} is no proper csv table ({reason}): save it again as CSV UTF-8.",
        "{table} 不是规范的 CSV 表格（{reason}）：请重新另存为“CSV UTF-8”。",
    ),
    "table-row-too-long": (
        "The row {row} in {table} has more cells than the header: look for a comma inside a cell.",
        "{table} 中的行 {row} 比表头的单元格多：请检查单元格内是否有逗号。",
    ),
    "no-columns": ("none", "无"),
    "table-no-id": (
        "{table} has no column id (columns: {columns}): name the patient column id.",
        "{table} 没有患者编号列（现有列：{columns}）：请将患者编号列命名为 id。",
    ),
    "table-id-twice": (
        "{table} has two columns that mean {column}: keep one.",
        "{table} 中有两列都表示 {column}：请只保留一列。",
    ),
    "table-several-ids": (
        "{table} has several columns that may be the patient's id ({columns}): name the right one id.",
        "{table} 中有多列可能是患者编号（{columns}）：请将正确的一列命名为 id。",
    ),
    "table-column-twice": (
        "{table} has the column {column} twice: keep one.",
        "{table} 中列 {column} 出现两次：请只保留一列。",
    ),
    "table-two-meanings": (
        "{table} has several columns that mean {meaning} ({columns}): keep one.",
        "{table} 中有多列都表示 {meaning}（{columns}）：请只保留一列。",
    ),
    "row-missing": (
        "Patient {patient} has no row in {table}: give the table one row with this id.",
        "{table} 中没有患者 {patient}：请在表格中为该编号添加一行。",
    ),
    "row-missing-similar": (
        "Patient {patient} has no row in {table}, only {similar} looks alike: a spreadsheet may have changed the id; "
        "if it is the same patient, write the id in the table as {patient}, as text.",
        "{table} 中没有患者 {patient}，仅有相似的编号 {similar}：编号可能被电子表格软件改动；"
        "若为同一患者，请在表格中以文本形式将编号改为 {patient}。",
    ),
    "row-repeated": (
        "Patient {patient} has {count} rows in {table} that differ: give the table one row with this id.",
        "患者 {patient} 在 {table} 中有 {count} 行且内容不一致：每个编号请只保留一行。",
    ),
    "age-missing": (
        "The age of patient {patient} in {table} is missing: fill it in, or allow prediction without it.",
        "{table} 中患者 {patient} 的年龄缺失：请补填，或允许在缺少年龄的情况下预测。",
    ),
    "sex-missing": (
        "The sex of patient {patient} in {table} is missing: fill it in, or allow prediction without it.",
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
    "age-not-number": ("is not a number of years: give years, as 45", "不是以岁计的数字：请填写岁数，如 45"),
    "age-months-or-male": (
        "may be months or a man's age: write 18 months, or the age alone in years",
        "可能是月龄，也可能是男性的年龄：请写“18个月”，或只写岁数",
    ),
    "age-nought": (
        "is 0: leave it empty if the age is not known; give an infant's in months, as 6M",
        "为零：年龄未知请留空；婴儿请按月填写，如 6M",
    ),
    "age-outside": ("is outside 0 to {oldest} years: correct it", "不在 0 至 {oldest} 岁之间：请更正"),
    "age-birth-year": ("is a year of birth: give the age in years", "是出生年份：请填写岁数"),
    "age-date": ("is a date: give the age in years", "是日期：请填写岁数"),
    "age-impossible": (
        "The age {age} is impossible: give a number of years from 0 to {oldest}, or None where it is not known.",
        "年龄 {age} 无效：请给出 0 至 {oldest} 之间的岁数，未知时为 None。",
    ),
    "sex-impossible": (
        "The sex {sex} is impossible: give 0 for male, 1 for female, or None where it is not known.",
        "性别 {sex} 无效：男性为 0，女性为 1，未知时为 None。",
    ),
    "sex-is-not-understood": ("is not understood: {reason}", "无法识别：{reason}"),
    "sex-words": ("give M or 0 (male), F or 1 (female)", "请填写 M 或 0（男）、F 或 1（女）"),
    "sex-not-stated": ("the column's name states other codes", "列名中说明的编码不包括该值"),
    "sex-mixed": (
        "the column mixes numbers and words; write M and F throughout",
        "该列混用数字与文字；请统一填写 M 和 F",
    ),
    "sex-codes": (
        "the column's numbers are neither 0 and 1 (male, female) nor 1 and 2 (male, female); write M and F",
        "该列的数字既不是 0 和 1（男、女），也不是 1 和 2（男、女）；请填写 M 和 F",
    ),
    "sex-lone-code": (
        "1 is the only number in the column, and may be coded as 1 and 2 (1 is male) or 0 and 1 (1 is female); write "
        "male and female, or name the column 'sex (1=female)' or 'sex (1=male)'",
        "该列只有数字 1，可能按 1/2 编码（1 为男），也可能按 0/1 编码（1 为女）；请填写“男”或“女”，"
        "或将列名写为“性别(1=女)”或“性别(1=男)”",
    ),
    "sex-m-or-mujer": (
        "is not understood: beside H it may mean mujer; write male and female",
        "无法识别：与 H 并用时 M 可能表示女性；请填写“男”或“女”",
    ),
    "ki67-threshold": (
        "The Ki-67 threshold {threshold:g} is no percentage: give one above 0 and up to 100.",
        "Ki-67 阈值 {threshold:g} 不是百分数：请给出大于 0 且不超过 100 的数值。",
    ),
    "labels-repeated": (
        "The patient {patient} has several different rows in {table}: keep the one that belongs to the examination.",
        "患者 {patient} 在 {table} 中有多行且内容不同：请只保留与该次检查对应的一行。",
    ),
    "labels-two-patients": (
        "The row {row} in {table} may belong to {patient} or to {other}: write each patient's id exactly in the table.",
        "{table} 中的行 {row} 可能属于 {patient}，也可能属于 {other}：请在表格中准确填写每位患者的编号。",
    ),
    "labels-two-meanings": (
        "Both {one} and {other} in {table} are {meaning}: keep one.",
        "{table} 中 {one} 与 {other} 都表示 {meaning}：请只保留一列。",
    ),
    "labels-left-out": (
        "Left out, because they may identify a patient: {columns}.",
        "以下列可能识别患者身份，已略去：{columns}。",
    ),
    "labels-rows-differ": (
        "{count} patient(s) have several rows that differ.",
        "有 {count} 位患者存在多行且内容不一致。",
    ),
    "labels-faults": ("In {table}: {faults}.", "{table} 中：{faults}。"),
    "faults-joined": ("{first}; {second}", "{first}；以及{second}"),
    "faults-and-more": ("{faults} (and {count} more)", "{faults}（另有 {count} 处）"),
    "cell-fault": ("{column} '{cell}' of {patient} {reason}", "{patient} 的 {column}“{cell}”{reason}"),
    "cell-refused": ("is not understood ({reason}): give {choices}", "无法识别（{reason}）：请填写{choices}"),
    "cell-not-understood": ("is not understood: give {choices}", "无法识别：请填写{choices}"),
    "choices-idh": ("1 or 0, or mutant or wild type", " 1 或 0，或“突变型”“野生型”"),
    "choices-mgmt": ("1 or 0, or methylated or unmethylated", " 1 或 0，或“甲基化”“未甲基化”"),
    "choices-codel": ("1 or 0, or codeleted or intact", " 1 或 0，或“共缺失”“无共缺失”"),
    "choices-level": ("1 or 0, or high or low", " 1 或 0，或“高”“低”"),
    "cell-unknown-word": ("'{word}' is not a known word", "“{word}”不是已知词语"),
    "cell-ambiguous": ("it may mean more than one thing", "可能有多种含义"),
    "cell-contradicts": ("its parts contradict each other", "各部分相互矛盾"),
    "cell-no-result": ("it states no result", "没有给出结果"),
    "cell-other-finding": ("it is about another finding", "说的是其他指标"),
    "cell-partly-known": ("one result is known and another is not", "部分结果已知，部分未知"),
    "cell-one-part": ("it speaks of {part} only", "只提到 {part}"),
    "column-coding": (
        "The name of the column {column} in {table} states codes that are not understood: write the results as words.",
        "{table} 中列名“{column}”所说明的编码无法识别：请用文字填写结果。",
    ),
    "cell-code-unstated": ("is no code that the column's name states", "不在列名说明的编码之内"),
    "cell-protein": (
        "may be a stain for the protein, not the methylation: give {choices}",
        "可能是蛋白染色结果，而非甲基化：请填写{choices}",
    ),
    "cell-sign-of-arm": (
        "may mean lost or not lost: give {choices}",
        "可能表示缺失，也可能表示无缺失：请填写{choices}",
    ),
    "cell-no-grade": ("is no single WHO grade: give 1, 2, 3 or 4", "不是单一的 WHO 分级：请填写 1、2、3 或 4"),
    "percent-none": ("is no percent: give a number such as 15", "不是百分数：请填写数字，如 15"),
    "percent-above": ("is above 100 percent", "超过 100%"),
    "percent-reversed": ("is a range from more to less", "范围的起点大于终点"),
    "percent-or-share": (
        "may be {high:g} % or {low:g} %: write it with a % sign",
        "可能是 {high:g}%，也可能是 {low:g}%：请写上百分号",
    ),
    "ki67-ranges": ("{count} Ki-67 range(s) are replaced by their mean.", "{count} 个 Ki-67 范围值以均值代替。"),
    "ki67-bounds": (
        "{count} Ki-67 value(s) are only a bound (as <5%): level where it follows, no percent.",
        "{count} 个 Ki-67 值只有界限（如 <5%）：能判断高低的给出高低，不给百分数。",
    ),
    "ki67-disagrees": (
        "In {count} patient(s) the stated Ki-67 level disagrees with {threshold:g} %; the percent decides.",
        "{count} 位患者的 Ki-67 高低与 {threshold:g}% 的阈值不符；以百分数为准。",
    ),
    "birth-no-date": (
        "A birth or study date is no date (YYYYMMDD): correct it, or give the age in the table.",
        "出生日期或检查日期不是有效日期（YYYYMMDD）：请更正，或在表格中填写年龄。",
    ),
    "birth-after-study": (
        "A study is dated before the patient's birth: correct the dates.",
        "检查日期早于患者出生日期：请更正日期。",
    ),
    "predictions-foreign": (
        "{table} is no table of gliomark's predictions (it lacks the columns {columns}): move it, or choose another "
        "output folder.",
        "{table} 不是 gliomark 的预测结果表（缺少列 {columns}）：请移走该文件，或选择其他输出文件夹。",
    ),
    "row-of-another": (
        "The clinical row belongs to patient {row}, the images to patient {patient}: give the row of {patient}.",
        "临床数据行属于患者 {row}，影像属于患者 {patient}：请提供患者 {patient} 的数据行。",
    ),
    "table-huge": (
        "{table} is far larger than any table of patients, or a cell stands far outside the others: copy the rows and "
        "columns that are needed into a new file.",
        "{table} 远大于任何患者表格，或有单元格远离其他内容：请将所需的行和列复制到新文件。",
    ),
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    "sequence-missing": (
        "{folder}: the sequence {missing} is missing (found: {found}); add it, or choose a model that does not need "
        "it.",
        "{folder}：缺少 {missing} 序列（已找到：{found}）；请补充该序列，或选择不需要它的模型。",
    ),
    "field-of-no-head": (
        "{file} shows a field of {field} mm (voxels of {steps} mm), which is not possible for a head: check the voxel size "
        "and its units.",
        "{file} 的视野为 {field} 毫米（体素 {steps} 毫米），不可能是头部影像：请核对体素大小及其单位。",
    ),
    "brain-not-found": (
        "No brain was found in the image ({reason}): check that it is an axial head MRI.",
        "影像中未找到脑组织（{reason}）；请确认是轴位头部磁共振影像。",
    ),
    "brain-too-small": (
        "Only {ml:.0f} ml of brain were found in the image: check that it is a whole axial head MRI.",
        "影像中仅找到 {ml:.0f} 毫升脑组织；请确认是完整的轴位头部磁共振影像。",
    ),
    "brain-of-nobody": (
        "The brain in {file} would measure {ml:.0f} ml ({extent} mm), which is not possible: check the voxel size "
        "({steps} mm) and its units.",
        "{file} 中的脑体积将达 {ml:.0f} 毫升（{extent} 毫米），不可能属实：请核对体素大小（{steps} 毫米）及其单位。",
    ),
    "brain-small": (
        "Only {ml:.0f} ml of brain were found, less than an adult has: check that the whole head is shown and that the "
        "voxel size ({steps} mm) is right; areas and volumes depend on it.",
        "仅找到 {ml:.0f} 毫升脑组织，少于成人脑体积：请核对影像是否包含整个头部以及体素大小（{steps} 毫米）是否正确，"
        "面积和体积取决于此。",
    ),
    "brain-partly-shown": (
        "{sequence} shows only {percent:.0f} % of the brain (missing: {part}); what it does not show was not "
        "examined.",
        "{sequence} 仅覆盖 {percent:.0f} % 的脑组织（缺少{part}）；未覆盖的部分未被检查。",
    ),
    "brain-cut": (
        "The images end within the brain (missing: {part}); what they do not show was not examined.",
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
        "No slice shows enough brain (8 cm2): check that it is an axial head MRI.",
        "没有任何层面显示足够的脑组织（8 平方厘米）；请确认是轴位头部磁共振影像。",
    ),
    "cohort-slice-altered": (
        "{path} is no longer as 'cohort build' wrote it: build the cohort again, which prepares that patient anew.",
        "{path} 与“cohort build”写入时的内容不一致：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-missing": (
        "{path} is missing: build the cohort again, which prepares that patient anew.",
        "缺少 {path}：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-damaged": (
        "{path} is damaged: build the cohort again, which prepares that patient anew.",
        "{path} 已损坏：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-not-hashed": (
        "Patient {patient} was prepared by an older gliomark that kept no hashes: whether the prepared images were "
        "altered since could not be checked.",
        "患者 {patient} 由较早版本的 gliomark 处理，未保存校验值：无法核查处理后的图像是否被改动。",
    ),
    "cohort-slice-unusable": (
        "{path} holds what no preparation writes (values that are no numbers, another size, or a mask that is not 0 and "
        "1): build the cohort again, which prepares that patient anew.",
        "{path} 含有预处理不会写入的内容（非数值、尺寸不同，或掩膜不是 0 和 1）：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-record-damaged": (
        "{path} is damaged or no record of this cohort: build the cohort again, or restore the file.",
        "{path} 已损坏或不是该队列的记录：请重新构建队列，或恢复该文件。",
    ),
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    "no-lesion-in-part": (
        "No lesion was found in the {percent:.0f} % of the brain that the images show; the rest was not examined, and "
        "no marker is predicted.",
        "在影像所覆盖的 {percent:.0f} % 脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
    ),
    "no-lesion-in-part-shown": (
        "No lesion was found in the part of the brain that the images show; the rest was not examined, and no "
        "marker is predicted.",
        "在影像所覆盖的部分脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
    ),
    "no-outline": (
        "The reader left nothing outlined; no marker is predicted.",
        "阅片者未保留任何勾画，因此未预测标志物。",
    ),
    "age-or-sex-unknown": (
        "Age or sex is unknown; the markers were predicted without it, which was not tested.",
        "年龄或性别未知；标志物是在缺少该信息的情况下预测的，这种用法未经验证。",
    ),
    "stood-in": (
        "{wanted} is missing and {shown} was shown to the networks in its place, which they were not trained for: "
        "check the outline. No marker is predicted by the model.",
        "缺少 {wanted} 序列，以 {shown} 代替输入网络，而网络并未针对此用法训练：请核对病灶轮廓。模型不预测任何标志物。",
    ),
    "marker-on-stand-in": (
        "The networks saw {shown} in place of {wanted}. The marker was never validated on such images, so neither a "
        "level nor a probability is given.",
        "输入网络的是 {shown} 而非 {wanted}。该标志物从未在此类影像上验证，因此不给出判断和概率。",
    ),
    "marker-not-validated": (
        "This model has not been validated for the marker on patients it had not seen, so neither a level nor a "
        "probability is given.",
        "该模型对此标志物的预测尚未在未参与训练的患者上验证，因此不给出判断和概率。",
    ),
    "marker-at-chance": (
        "Not shown to be better than chance in validation (AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}; {patients} patients, "
        "{positives} positive), so neither a level nor a probability is given.",
        "验证中未能证明优于随机猜测（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}；{patients} 例患者，阳性 "
        "{positives} 例），因此不给出判断和概率。",
    ),
    "marker-better-than-chance": (
        "Better than chance in validation (AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}; {patients} patients, "
        "{positives} positive), so levels and probabilities are given.",
        "验证中优于随机猜测（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}；{patients} 例患者，阳性 {positives} "
        "例），因此给出判断和概率。",
    ),
    "fusion-not-validated": (
        "Threshold and validation belong to the rule 'near'; they were not measured for the rule '{fusion}'.",
        "阈值与验证结果均针对“near”规则；未针对“{fusion}”规则进行评估。",
    ),
    "borderline": (
        "Borderline: the probability lies within {margin:.0f} percentage points of the threshold, so a small change of "
        "image or outline can turn the answer.",
        "临界：概率与阈值相差不超过 {margin:.0f} 个百分点，影像或轮廓稍有变化即可能改变结论。",
    ),
    "finding-without-lesion": (
        "The reader's finding was not used: without a lesion there is no marker to state.",
        "未采用阅片者的判断：没有病灶，无从判断标志物。",
    ),
    "finding-contradicted": (
        "The reader's finding and the model disagree: the finding means {found}, the model says {level} "
        "(probability of {positive}: {probability}).",
        "阅片者的判断与模型不一致：前者提示{found}，模型判断为{level}（{positive}的概率：{probability}）。",
    ),
    "enhancing-not-understood": (
        "The enhancing focus {given} is not understood; give True, False or None if it is not stated.",
        "无法识别强化灶的取值 {given}；请给出 True、False，未说明时为 None。",
    ),
    "fusion-unknown": (
        "The fusion rule {given} is unknown; it must be near, all or large.",
        "未知的层面合并规则 {given}；只能是 near、all 或 large。",
    ),
    "no-mask": (
        "Patient {patient} has no lesion mask; draw one, or leave the patient out.",
        "患者 {patient} 没有病灶掩膜；请勾画，或不纳入该患者。",
    ),
    "mask-not-used": (
        "A lesion mask lies beside the images ({file}). It was not used: the outline is the model's. The client offers it as "
        "an outline.",
        "影像旁有一份病灶掩膜（{file}），未被采用：轮廓由模型勾画。可在客户端中选用该掩膜作为轮廓。",
    ),
    "mask-unreadable": (
        "A lesion mask lies beside the images ({file}) but cannot be used: {reason}",
        "影像旁有一份病灶掩膜（{file}），但无法使用：{reason}",
    ),
    "clinical-not-given": (
        "No clinical table was given; name one with --clinical, or add --without-clinical.",
        "未提供临床信息表；请用 --clinical 指定，或加 --without-clinical。",
    ),
    "patient-twice": (
        "{folder} holds patient {patient} like {other} before it; put them into one folder or give them different ids.",
        "{folder} 与之前的 {other} 都是患者 {patient}；请放入同一文件夹，或使用不同的编号。",
    ),
    "not-predicted": (
        "{folder} could not be predicted ({kind}: {reason}).",
        "无法预测 {folder}（{kind}：{reason}）。",
    ),
    "nothing-to-explain": (
        "{folder}: no lesion was found, so there is no answer to explain.",
        "{folder}：未发现病灶，没有可解释的结果。",
    ),
    "no-probability-to-explain": (
        "{folder}: the model gives no probability, so there is none to explain. {reason}",
        "{folder}：模型未给出概率，没有可解释的结果。{reason}",
    ),
    "no-marker-to-explain": (
        "The model {model} knows no marker, so there is no answer to explain.",
        "模型 {model} 不含任何标志物，没有可解释的结果。",
    ),
    # of an answer: the markers, their levels and what they are worth
    "title-idh": ("IDH", "IDH 基因状态"),
    "title-ki67": ("Ki-67", "Ki-67 增殖指数"),
    "label-idh": (
        "positive: IDH1 or IDH2 is mutated; negative: wild type",
        "阳性：IDH1 或 IDH2 突变；阴性：野生型",
    ),
    "label-ki67": (
        "high: at least 10 % of the stained tumour cells are Ki-67 positive",
        "高：至少 10% 的染色肿瘤细胞 Ki-67 阳性",
    ),
    "level-mutant": ("mutant", "突变型"),
    "level-wild-type": ("wild type", "野生型"),
    "level-high": ("high", "高"),
    "level-low": ("low", "低"),
    "level-positive": ("positive", "阳性"),
    "level-negative": ("negative", "阴性"),
    "level-undetermined": ("undetermined", "未能判定"),
    "level-borderline": ("borderline, leaning {level}", "临界，倾向{level}"),
    "performance": (
        "AUC {auc:.2f} (95 % interval {low:.2f} to {high:.2f}) in cross-validation on {patients} patients of {cohort}, "
        "{positives} of them positive; each was judged by models that had not seen them. The final model was refitted "
        "on all of them.",
        "在 {cohort} 的 {patients} 例患者（阳性 {positives} 例）上交叉验证，每例均由未用该患者训练的模型判断：AUC "
        "{auc:.2f}（95% 置信区间 {low:.2f} 至 {high:.2f}）。最终模型用全部患者重新训练。",
    ),
    "threshold-origin": (
        "{threshold}: where sensitivity plus specificity was highest in validation, in which {positives} of {patients} "
        "patients ({share}) were {positive}. At or above it the answer is {positive}, below it {negative}, even where "
        "50 % would suggest otherwise.",
        "{threshold}：取自验证中敏感度与特异度之和最大处，当时 {patients} 例患者中 {positives} 例（{share}）为{positive}。"
        "达到或高于阈值判为{positive}，低于阈值判为{negative}，即使与以 50% 为界的判断不同。",
    ),
    "finding-performance": (
        "A rule of thumb, not the model: it gave the right answer in {right} of {patients} {cohort} patients "
        "({accuracy:.2f}; 95 % interval {low:.2f} to {high:.2f}). {case} Enhancement was judged there by a fixed rule on "
        "T1 and T1C, not by readers.",
        "这是经验规则而非模型：在 {cohort} 的 {patients} 例患者中 {right} 例判断正确（{accuracy:.2f}；95% 置信区间 {low:.2f} 至 "
        "{high:.2f}）。{case}该评估中强化灶由 T1 与 T1C 的固定规则判定，而非由阅片者判定。",
    ),
    "finding-focus": (
        "Where there was an enhancing focus, {right} of {of} patients were wild type.",
        "有强化灶的 {of} 例患者中 {right} 例为野生型。",
    ),
    "finding-no-focus": (
        "Where there was none, {right} of {of} patients were mutant.",
        "无强化灶的 {of} 例患者中 {right} 例为突变型。",
    ),
    "finding-in-short": (
        "A rule of thumb: right in {right} of {patients} patients ({accuracy:.2f}); only {wild_type} of {focus} with an "
        "enhancing focus were wild type.",
        "经验规则：{patients} 例患者中 {right} 例正确（{accuracy:.2f}）；有强化灶的 {focus} 例中仅 {wild_type} 例为野生型。",
    ),
    "fusion-near-3": (
        "Mean of the three slices around the largest lesion.",
        "取病灶最大处附近 3 个层面的均值。",
    ),
    "fusion-near-2": (
        "Mean of the two slices around the largest lesion; on the other side there is no lesion to judge.",
        "取病灶最大处附近 2 个层面的均值；另一侧相邻层面没有可供判断的病灶。",
    ),
    "fusion-near-1": (
        "The slice with the largest lesion alone; its neighbours show no lesion to judge.",
        "仅取病灶最大的层面；其相邻层面没有可供判断的病灶。",
    ),
    "fusion-large": (
        "The slice with the largest lesion alone.",
        "仅取病灶最大的层面。",
    ),
    "fusion-all": (
        "Mean of all {count} slices with a lesion that were read.",
        "取全部 {count} 个所分析的含病灶层面的均值。",
    ),
    "outline-joint": (
        "the sequences together as one input ({sequences})",
        "各序列合并为一个输入（{sequences}）",
    ),
    "outline-union": (
        "each sequence alone, the outlines united ({sequences})",
        "各序列分别勾画后合并（{sequences}）",
    ),
    "outline-single": ("one sequence alone ({sequences})", "仅用一个序列（{sequences}）"),
    "outline-by-reader": ("reader's outline", "阅片者的勾画"),
    # ---- progress ---------------------------------------------------------------------------------------
    "step-align": ("aligning the sequences", "正在配准各序列"),
    "step-strip": ("finding the brain", "正在提取脑组织"),
    "step-slice": ("cutting slices", "正在切取层面"),
    "step-outline": ("outlining the lesion", "正在勾画病灶"),
    "step-marker": ("predicting {title}", "正在预测{title}"),
    "step-write": ("writing the results", "正在写入结果"),
    # ---- weights and models -----------------------------------------------------------------------------
    "weights-card-unknown": (
        "{path}: the weights file states something that this gliomark does not know or that cannot be ({field}: "
        "{reason}); update gliomark, or train the model anew.",
        "{path}：权重文件中有当前 gliomark 版本无法识别或不可能的内容（{field}：{reason}）；请更新 gliomark，或重新训练模型。",
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
    "work-of-other-patients": (
        "{folder} holds a training on other patients; delete that folder to train anew, or write to another place.",
        "{folder} 中保存的是另一批患者的训练进度；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-settings": (
        "{folder} holds a training with other settings; delete that folder to train anew, or write to another place.",
        "{folder} 中保存的是另一套设置下的训练进度；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-data": (
        "{folder} holds a training on other images, outlines or labels of these patients; delete that folder to train "
        "anew, or write to another place.",
        "{folder} 中保存的训练进度所用的图像、轮廓或标签与现在不同；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-unknown": (
        "{folder} holds a training that does not say what it was done on; delete that folder to train anew, or write "
        "to another place.",
        "{folder} 中的训练进度未记录其数据与设置；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "intended-use": (
        "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR",
        "仅供演示与科研；不是医疗器械；训练数据为低级别胶质瘤的 T1C 与 FLAIR 影像",
    ),
    "licence": (
        "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; images TCIA TCGA-LGG, CC BY "
        "3.0",
        "CC BY-NC-SA 4.0（非商业、相同方式共享），承自训练掩膜；影像来自 TCIA TCGA-LGG，CC BY 3.0",
    ),
    "licence-not-stated": ("not stated", "未注明"),
    "intended-use-research": ("research use only, not a medical device", "仅供科研使用，不是医疗器械"),
    "training-cohort": (
        "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019: {patients} patients for the outline, at least "
        "{fewest} per marker",
        "TCGA-LGG，采用 Buda 等（2019）的 FLAIR 异常区掩膜：病灶勾画用 {patients} 例患者，每个标志物至少 {fewest} 例",
    ),
    "weights-absent": (
        "{path}: there is no such weights file; give a file or the name of a shipped model.",
        "{path}：没有这个权重文件；请给出文件路径或内置模型的名称。",
    ),
    "weights-not-opened": (
        "{path}: the weights file cannot be opened ({reason}); check the path and its permissions.",
        "{path}：无法打开权重文件（{reason}）；请检查路径与权限。",
    ),
    "weights-cut": (
        "{path}: this is no weights file, or it is damaged or cut short (it has {size} bytes); fetch it again.",
        "{path}：这不是权重文件，或文件已损坏、不完整（共 {size} 字节）；请重新获取。",
    ),
    "weights-too-large": (
        "{path}: this is no weights file of gliomark, none of which is so large ({size} bytes, {header} of them the "
        "header); train or fetch one.",
        "{path}：这不是 gliomark 的权重文件，其大小超出可能范围（共 {size} 字节，文件头 {header} 字节）；请训练或重新获取。",
    ),
    "weights-damaged": (
        "{path}: the weights file is damaged or cut short ({reason}); fetch it again.",
        "{path}：权重文件已损坏或不完整（{reason}）；请重新获取。",
    ),
    "weights-other-version": (
        "{path}: this is not a gliomark weights file of version {version}; train or fetch one.",
        "{path}：这不是版本 {version} 的 gliomark 权重文件；请训练或重新获取。",
    ),
    "weights-altered": (
        "{path}: the weights file was altered after it was written; fetch it again.",
        "{path}：权重文件写成后被改动过；请重新获取。",
    ),
    "weights-changed": (
        "{path}: the weights file is not the one that was checked when the server started; put it back, or start the "
        "server again.",
        "{path}：权重文件已不是服务器启动时核对过的那一份；请恢复原文件，或重新启动服务器。",
    ),
    "weights-card-unreadable": (
        "{path}: the description in the weights file cannot be read ({reason}); fetch it again, or train the model "
        "anew.",
        "{path}：无法读取权重文件中的模型说明（{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-card-incomplete": (
        "{path}: the weights file does not state its {fields}; train it anew.",
        "{path}：权重文件未写明 {fields}；请重新训练模型。",
    ),
    "weights-tensor-kind": (
        "{path}: the weights file holds {names} as {kind}, which gliomark does not write, or empty; fetch it again.",
        "{path}：权重文件中的 {names} 为 {kind} 类型或为空，不是 gliomark 所写；请重新获取。",
    ),
    "weights-tensor-missing": (
        "{path}: the weights file lacks weights that its network needs ({names}); fetch it again, or train the model "
        "anew.",
        "{path}：权重文件缺少其网络所需的权重（{names}）；请重新获取，或重新训练模型。",
    ),
    "weights-tensor-strange": (
        "{path}: the weights file holds weights that no part of its model asks for ({names}); fetch it again, or train "
        "the model anew.",
        "{path}：权重文件中有模型各部分都用不到的权重（{names}）；请重新获取，或重新训练模型。",
    ),
    "weights-tensor-other": (
        "{path}: the weights {name} are {found} where the network takes {wanted}; fetch the file again, or train the "
        "model anew.",
        "{path}：权重 {name} 为 {found}，而网络需要 {wanted}；请重新获取该文件，或重新训练模型。",
    ),
    "weights-not-numbers": (
        "{path}: the weights file holds values that no network can compute with, such as infinity or a negative spread "
        "({names}); train the model anew.",
        "{path}：权重文件中有网络无法计算的数值，例如无穷大、非数值或负方差（{names}）；请重新训练模型。",
    ),
    "weights-network": (
        "{path}: the weights file's part '{part}' describes a network that cannot be built or run ({reason}); fetch it "
        "again, or train the model anew.",
        "{path}：权重文件中“{part}”部分所描述的网络无法建立或运行（{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-trees": (
        "{path}: the decision trees of '{part}' in the weights file are broken or of another model ({reason}); fetch it "
        "again, or train the model anew.",
        "{path}：权重文件中“{part}”的决策树已损坏或属于其他模型（{reason}）；请重新获取，或重新训练模型。",
    ),
    "weights-no-answer": (
        "{path}: the weights file's part '{part}' gives no answer ({reason}); train the model anew.",
        "{path}：权重文件的“{part}”部分得不出结果（{reason}）；请重新训练模型。",
    ),
    "weights-diverged": (
        "{path} is not written: the trained weights hold values that are no numbers ({names}), so the training "
        "diverged; check the cohort's images, and train again with other settings or in another folder.",
        "未写入 {path}：训练所得权重含有非数值（{names}），训练未收敛；请检查队列影像，更换设置或输出文件夹后重新训练。",
    ),
    "network-unknown": (
        "There is no network called '{name}'; update gliomark, or choose another.",
        "没有名为“{name}”的网络；请更新 gliomark，或选择其他网络。",
    ),
    "network-of-before": (
        "This MIG-Net was trained by gliomark 0.1, whose MIG-Net had other layers; train it anew with this version.",
        "该 MIG-Net 由 gliomark 0.1 训练，其网络层与现在不同；请用当前版本重新训练。",
    ),
    "outline-no-number": (
        "The outlining network's answer is no number, so nothing can be said of this patient; use other weights.",
        "病灶勾画网络的结果不是有效数值，无法对该患者作出判断；请改用其他权重。",
    ),
    "marker-no-number": (
        "The marker network's answer is no number, so nothing can be said of this patient; use other weights.",
        "标志物网络的结果不是有效数值，无法对该患者作出判断；请改用其他权重。",
    ),
    "marker-name-unusable": (
        "A marker cannot be called '{name}', because files are named by it; rename the column, without / and dots at "
        "its ends.",
        "标志物不能命名为“{name}”，因为文件会以其命名；请重命名该列，不要含 /，首尾不要有点号或空格。",
    ),
    "signature-no-key": (
        "Signed weights are demanded but no key is trusted; name the signers' public keys with --trusted-key.",
        "已要求权重必须签名，但未指定受信任的公钥；请用 --trusted-key 给出签名者的公钥文件。",
    ),
    "signature-missing": (
        "{path}: the weights file is not signed ({place} is not beside it); get its signature, or sign it with "
        "'gliomark models sign'.",
        "{path}：权重文件没有签名（旁边没有 {place}）；请获取其签名，或用 gliomark models sign 签名。",
    ),
    "signature-unreadable": (
        "{path} is no signature that can be read ({reason}); fetch it again, or sign the weights file anew.",
        "{path} 不是可读取的签名（{reason}）；请重新获取，或重新为权重文件签名。",
    ),
    "signature-unknown-key": (
        "{path}: the weights file is signed with the key {key}, which is not trusted here; add its public key with "
        "--trusted-key if you know whose it is.",
        "{path}：权重文件由密钥 {key} 签名，此处不信任该密钥；若确知其所有者，请用 --trusted-key 添加其公钥。",
    ),
    "signature-wrong": (
        "{path}: the signature by the key {key} is not of this file, which was altered or is another one; fetch both "
        "again.",
        "{path}：密钥 {key} 的签名与该文件不符，文件被改动过或不是同一文件；请重新获取文件及其签名。",
    ),
    "key-unreadable": (
        "{path} cannot be used as a key ({reason}); give a key made by 'gliomark models keygen' or minisign, and its "
        "password where it has one.",
        "{path} 不能用作密钥（{reason}）；请给出由 gliomark models keygen 或 minisign 生成的密钥，如有密码请正确输入。",
    ),
    "key-exists": (
        "{path} is there already, and a key is never overwritten; choose another name.",
        "{path} 已存在，密钥不会被覆盖；请换一个名称。",
    ),
    # ---- results ----------------------------------------------------------------------------------------
    "dicom-out-bad-uid": (
        "{file} states the {keyword} '{value}', which is no UID, so results as DICOM cannot refer to it; export the "
        "series in {folder} again, or leave --dicom-out away.",
        "{file} 的 {keyword} 为“{value}”，不是有效的 UID，DICOM 结果无法引用；"
        "请重新导出 {folder} 中的序列，或不使用 --dicom-out。",
    ),
    "not-written": (
        "Could not write '{path}' ({reason}); choose an output folder that can be written to.",
        "无法写入 {path}（{reason}）；请选择可写的输出文件夹。",
    ),
    "not-a-result": (
        "'{folder}' holds '{file}', which is no gliomark result; choose another output folder.",
        "“{folder}”中的“{file}”不是 gliomark 的结果；请另选输出文件夹。",
    ),
    "id-empty": (
        "The patient id is empty; give the patient an id, which names the result's folder.",
        "患者编号为空；请提供编号，结果文件夹以其命名。",
    ),
    "not-dicom": (
        "Patient {patient} did not come as DICOM, so results as DICOM have no study to go into; leave --dicom-out away, or "
        "give the DICOM files.",
        "患者 {patient} 的影像不是 DICOM，DICOM 结果无所属检查；请去掉 --dicom-out，或提供 DICOM 文件。",
    ),
    "dicom-gone": (
        "{file} can no longer be read; results as DICOM need the images they were made from.",
        "{file} 已无法读取；DICOM 结果需要原始影像。",
    ),
    "dicom-incomplete": (
        "{file} states no {field}, which results as DICOM refer to; export the series in {folder} again, or leave "
        "--dicom-out away.",
        "{file} 缺少 DICOM 结果需要引用的 {field}；请重新导出 {folder} 中的序列，或去掉 --dicom-out。",
    ),
    "dicom-spread": (
        "The series in {folder} is spread over {count} multi-frame files, to which results as DICOM cannot refer; leave "
        "--dicom-out away.",
        "{folder} 中的序列分布在 {count} 个多帧文件中，DICOM 结果无法引用；请去掉 --dicom-out。",
    ),
    # ---- uploads and server -----------------------------------------------------------------------------
    "server-unforeseen": (
        'The server could not do this; tell who runs it.',
        '服务器无法完成此操作；请告知服务器管理员。',
    ),
    "server-starting": (
        'The server is still loading its models; ask again in a moment.',
        '服务器仍在载入模型；请稍后再试。',
    ),
    "request-unfit": (
        'The request does not fit ({reason}).',
        '请求不符合要求（{reason}）。',
    ),
    "uploads-too-many": (
        'Too many uploads at once; try again in a minute.',
        '同时上传过多，请一分钟后重试。',
    ),
    "body-too-large": (
        'The body is larger than the {megabytes} MB taken here; send the series needed alone.',
        '内容超过服务器接受的 {megabytes} MB；请只发送所需序列。',
    ),
    "content-length-unfit": (
        'Content-Length must be a number.',
        'Content-Length 必须是数字。',
    ),
    "upload-silent": (
        'The upload stopped in the middle; send it again.',
        '上传中途停止；请重新发送。',
    ),
    "upload-broken-off": (
        'The upload was broken off; send it again.',
        '上传中断；请重新发送。',
    ),
    "upload-slow": (
        'The upload is too slow; send it again over a better line.',
        '上传过慢；请在更好的网络下重新发送。',
    ),
    "no-such-study": (
        'There is no such study; upload it again.',
        '服务器上没有这份影像，请重新选择患者文件夹。',
    ),
    "study-preparing": (
        'The study is still being prepared; wait until it is ready.',
        '影像仍在准备中，请稍候。',
    ),
    "study-failed": (
        'The study could not be prepared.',
        '无法准备该影像。',
    ),
    "no-such-prediction": (
        'There is no such prediction.',
        '没有这项预测。',
    ),
    "prediction-unanswered": (
        'The prediction is {state}; there is no answer yet.',
        '预测状态为 {state}；尚无结果。',
    ),
    "study-removed": (
        "The study's images and results were removed.",
        '该患者的影像与结果已被删除。',
    ),
    "not-your-prediction": (
        'Only who asked for the prediction, or an administrator, may cancel it.',
        '只有发起预测的用户或管理员可以取消。',
    ),
    "no-such-marker": (
        "The prediction knows no marker '{marker}'.",
        '该预测不含标志物“{marker}”。',
    ),
    "no-map": (
        'The map could not be drawn; try again.',
        '无法绘制热图；请重试。',
    ),
    "no-such-level": (
        "'{value}' is no level of {marker}; it is {levels}.",
        '“{value}”不是 {marker} 的取值；应为 {levels}。',
    ),
    "no-such-model": (
        "There is no model '{model}' here; choose {known}.",
        '服务器上没有模型“{model}”；请选择 {known}。',
    ),
    "no-such-slice": (
        'There is no such slice.',
        '没有这一层面。',
    ),
    "not-your-study": (
        'Only who uploaded the study, or an administrator, may change or remove it.',
        '只有上传者或管理员可以修改或删除该影像。',
    ),
    "not-corrected": (
        'Nobody has corrected this outline; send the corrected one first.',
        '尚无修正后的轮廓；请先发送。',
    ),
    "no-found-outline": (
        "No usable lesion mask came with this study's images.",
        '该影像未附带可用的病灶掩膜。',
    ),
    "age-or-sex-missing": (
        'Age or sex is missing; give both, or set without_clinical.',
        '缺少年龄或性别；请补全，或选择在缺少时预测。',
    ),
    "name-outside": (
        "The file name '{name}' is no path inside a patient's folder; send relative paths.",
        '文件名“{name}”不是患者文件夹内的路径；请发送相对路径。',
    ),
    "name-unfit": (
        'The file name {name} holds a sign that no file may have; rename it.',
        '文件名 {name} 含不允许的字符；请改名。',
    ),
    "too-many-files": (
        'The upload has more than {count} files; send the series needed alone.',
        '上传超过 {count} 个文件；请只发送所需序列。',
    ),
    "name-twice": (
        "The file name '{name}' stands in the upload twice; send each once.",
        '文件名“{name}”在上传中出现两次；请各发送一次。',
    ),
    "unpacked-too-large": (
        'Unpacked, the upload is larger than {megabytes} MB; send less.',
        '解压后超过 {megabytes} MB；请减少内容。',
    ),
    "disk-full": (
        'The server cannot write what was sent; its disk may be full. Tell who runs it.',
        '服务器无法写入，磁盘可能已满；请告知管理员。',
    ),
    "no-form": (
        'The body is no multipart form ({reason}); send it again.',
        '内容不是 multipart 表单（{reason}）；请重新发送。',
    ),
    "form-fields": (
        'The form has too many fields; send a model and a patient_id at most.',
        '表单字段过多；至多发送 model 与 patient_id。',
    ),
    "form-field-long": (
        'A field of the form is too long; send a model and a patient_id at most.',
        '表单字段过长；至多发送 model 与 patient_id。',
    ),
    "form-wanted": (
        "Send the files as multipart/form-data, in the field 'files'.",
        '请以 multipart/form-data 在 files 字段中发送文件。',
    ),
    "form-cut": (
        'The body ends in the middle of the form; send it again.',
        '表单内容不完整；请重新发送。',
    ),
    "upload-empty": (
        "The upload holds no file; send a patient's folder.",
        '上传中没有文件；请发送患者文件夹。',
    ),
    "zip-too-large": (
        'The zip unpacks to more than this server takes; send the series needed alone.',
        '压缩包解压后超过服务器上限；请只发送所需序列。',
    ),
    "zip-unreadable": (
        'The zip cannot be unpacked ({reason}); pack it again.',
        '无法解压（{reason}）；请重新打包。',
    ),
    "zip-damaged": (
        'The zip is damaged; pack it again.',
        '压缩包已损坏；请重新打包。',
    ),
    "zip-too-many": (
        'The zip has more than {count} files; send the series needed alone.',
        '压缩包超过 {count} 个文件；请只发送所需序列。',
    ),
    "zip-link": (
        "The zip holds the link '{name}'; pack the files themselves.",
        '压缩包含链接“{name}”；请打包文件本身。',
    ),
    "zip-locked": (
        'The zip is locked by a password; send it without.',
        '压缩包有密码；请去掉密码后发送。',
    ),
    "upload-patients": (
        'The upload holds {count} patients ({names}); send one at a time.',
        '所选文件夹含 {count} 位患者（{names}）；请一次只选一位。',
    ),
    "images-unreadable": (
        'The images could not be read ({kind}: {reason}).',
        '无法读取影像（{kind}：{reason}）。',
    ),
    "token-unknown": (
        'The token is not known here; ask who runs the server for a valid one.',
        '服务器不认识该令牌；请向管理员索取有效令牌。',
    ),
    "token-wanted": (
        "This server wants a token; send it as 'Authorization: Bearer TOKEN'.",
        '该服务器需要令牌；请以 Authorization: Bearer TOKEN 发送。',
    ),
    "admins-only": (
        "This is for administrators; ask with an admin's token.",
        '仅限管理员；请使用管理员令牌。',
    ),
    "host-unfit": (
        'The Host or Origin of the request is no address.',
        '请求的 Host 或 Origin 不是有效地址。',
    ),
    "this-machine-only": (
        'The server answers this machine alone; ask it as 127.0.0.1.',
        '服务器只应答本机；请以 127.0.0.1 访问。',
    ),
    "other-site": (
        'Pages of other sites may not ask this server.',
        '其他网站的页面不得访问该服务器。',
    ),
    "outline-unreadable": (
        'The outline is no readable PNG; send an 8-bit grey PNG.',
        '轮廓不是可读的 PNG；请发送 8 位灰度 PNG。',
    ),
    "outline-size": (
        'The outline is {columns} x {rows} pixels but must be {wanted_columns} x {wanted_rows}, the slices below each other.',
        '轮廓为 {columns} × {rows} 像素，应为 {wanted_columns} × {wanted_rows}（各层自上而下排列）。',
    ),
    "outline-kind": (
        'The outline is a picture of kind {kind}; send an 8-bit grey PNG of 0 and 255.',
        '轮廓图像类型为 {kind}；请发送取值 0 和 255 的 8 位灰度 PNG。',
    ),
    "data-folder-unfit": (
        'The data folder {folder} cannot be used ({reason}); choose another.',
        '数据文件夹 {folder} 无法使用（{reason}）；请另选一个。',
    ),
    "worker-died": (
        'The worker died {attempts} times on this; try again, and tell who runs the server.',
        '处理进程因该任务中断 {attempts} 次；请重试，并告知管理员。',
    ),
    "model-gone": (
        "The server has no model '{model}' any more; upload the study for another one.",
        '服务器上已没有模型“{model}”；请选用其他模型并重新上传影像。',
    ),
    "other-weights": (
        'The study was prepared for other weights; upload it again.',
        '该影像是按另一份模型权重预处理的；请重新上传。',
    ),
    "answer-of-other-weights": (
        'The answer was given by other weights, which are not here any more; predict again.',
        '该结果由另一份模型权重得出，该权重已不在服务器上；请重新预测。',
    ),
    "not-computed": (
        'This could not be computed ({kind}: {reason}).',
        '无法完成计算（{kind}：{reason}）。',
    ),
    "the-upload": ("the upload", "所发送的内容"),
    "streams-too-many": (
        'Too much is followed at once; close what is no longer needed, or try again in a moment.',
        '同时跟踪的任务过多；请关闭不再需要的任务，或稍后重试。',
    ),
    "token-wanted-again": (
        'This server has had tokens and wants one, although all were revoked; who runs it makes a new one with: gliomark token add NAME --data FOLDER',
        '该服务器曾设有令牌，虽已全部撤销仍需令牌；请管理员新建：gliomark token add NAME --data FOLDER',
    ),
    "worker-stuck": (
        'The computation made no progress for {minutes} minutes and was ended, {attempts} times; try again, and tell who runs the server.',
        '该任务 {minutes} 分钟无进展，已被终止 {attempts} 次；请重试，并告知管理员。',
    ),
    "audit-intact": (
        "{count} lines, intact, head {sha256} ({number}, {at})",
        "{count} 条记录，完整，末条哈希 {sha256}（第 {number} 条，{at}）",
    ),
    "audit-found": (
        "{intact}; the expected head is line {noted}",
        "{intact}；所给哈希为第 {noted} 条",
    ),
    "audit-empty": ("0 lines, intact: nothing has been recorded yet", "0 条记录，完整：尚无任何记录"),
    "audit-altered": (
        "Line {number} of the audit log was altered after it was written; the {intact} lines before it are intact.",
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
        "Line {number} of the audit log was inserted afterwards; the {intact} lines before it are intact.",
        "审计日志第 {number} 条为事后插入；其前 {intact} 条完整。",
    ),
    "audit-renumbered": (
        "Line {number} of the audit log was written as line {original}: the numbers were changed.",
        "审计日志第 {number} 条写入时为第 {original} 条：编号被更改。",
    ),
    "audit-head-gone": (
        "The expected head {sha256} is in none of the {count} lines of the audit log, although they follow each other: "
        "lines were removed at its end, the log was rewritten, or an older copy was restored.",
        "审计日志的 {count} 条记录虽前后相连，但其中没有所给的哈希 {sha256}：末尾记录被删除、日志被重写，"
        "或恢复了较早的副本。",
    ),
    "audit-head-row-gone": (
        "The database's own note of the audit log's newest line (table audit_head) is gone: somebody changed the "
        "database by hand, or only a part of it was restored; restore a whole copy.",
        "数据库中关于审计日志末条记录的登记（表 audit_head）已丢失：有人手动更改了数据库，或只恢复了一部分；"
        "请恢复完整的副本。",
    ),
    "audit-away": (
        "The server cannot record who looks at this, so it does not show it; ask again in a minute, or tell who runs "
        "the server.",
        "服务器无法记录查看操作，因此暂不显示；请一分钟后重试，或告知管理员。",
    ),
    "audit-hash-unfit": (
        "'{text}' is no SHA-256: give the 64 letters and digits that 'gliomark audit head' printed.",
        "“{text}”不是 SHA-256：请给出 gliomark audit head 打印的 64 位字符。",
    ),
    "audit-time-unfit": (
        "'{text}' is no date or time: write 2026-11-26 or 2026-11-26T08:00 (UTC).",
        "“{text}”不是日期或时间：请写成 2026-11-26 或 2026-11-26T08:00（UTC）。",
    ),
    "audit-unreadable": (
        "The audit log holds a line that cannot be read: somebody changed the database by hand; 'gliomark audit "
        "verify' names the line.",
        "审计日志中有无法读取的记录：有人手动更改了数据库；gliomark audit verify 会指出是哪一条。",
    ),
    "no-database": (
        "{folder} holds no gliomark.db: give the server's data folder with --data, or its database with --database.",
        "{folder} 中没有 gliomark.db：请用 --data 给出服务器的数据文件夹，或用 --database 给出其数据库。",
    ),
    "destination-unfit": (
        "'{text}' is no destination; write AET@host:port or http(s)://host/dicom-web.",
        "“{text}”不是有效的发送目标；请写成 AET@主机:端口 或 http(s)://主机/dicom-web。",
    ),
    "title-unfit": (
        "'{title}' is no AE title; give 1 to 16 letters, digits or signs but no backslash.",
        "“{title}”不是有效的 AE 标题；请给出 1 至 16 个字母、数字或符号（不含反斜杠）。",
    ),
    "node-open": (
        "Anybody in the network could push studies to {host}; name who may with --dicom-peer AET.",
        "网络中任何设备都可向 {host} 推送检查；请用 --dicom-peer AET 指定允许推送的设备。",
    ),
    "node-port": (
        "The DICOM port {port} cannot be opened ({reason}); choose another --dicom-port.",
        "无法打开 DICOM 端口 {port}（{reason}）；请用 --dicom-port 另选一个。",
    ),
    "token-role": (
        "The role '{role}' is unknown; it must be {known}.",
        "未知角色“{role}”；应为 {known}。",
    ),
    "token-name-taken": (
        "There is a token named '{name}' already; revoke it or take another name.",
        "已有名为“{name}”的令牌；请先撤销，或换一个名称。",
    ),
    "no-such-token": ("There is no token named '{name}'.", "没有名为“{name}”的令牌。"),
    "model-file-missing": (
        "The weights file {file} of model '{model}' is not there; check the path.",
        "模型“{model}”的权重文件 {file} 不存在；请检查路径。",
    ),
    "port-taken": (
        "Port {port} of {host} cannot be opened ({reason}); choose another --port.",
        "无法打开 {host} 的端口 {port}（{reason}）；请用 --port 另选一个。",
    ),
    "data-folder-taken": (
        "Another server is at work in the data folder {folder}; stop it, or choose another --data.",
        "数据文件夹 {folder} 正被另一个服务器使用；请先停止它，或用 --data 另选一个。",
    ),
    "tls-half": (
        "TLS needs both files; give --tls-certificate and --tls-key.",
        "TLS 需要两个文件；请同时给出 --tls-certificate 与 --tls-key。",
    ),
    "tls-file-missing": (
        "The TLS file {file} is not there; check the path.",
        "TLS 文件 {file} 不存在；请检查路径。",
    ),
    "tls-wanted": (
        "Patients' images would cross the network in the clear on {host}; give --tls-certificate and --tls-key, or "
        "listen on 127.0.0.1.",
        "在 {host} 上患者影像将以明文经网络传输；请给出 --tls-certificate 与 --tls-key，或只监听 127.0.0.1。",
    ),
    "tokens-wanted": (
        "Anybody could ask the server on {host}; add a token first: gliomark token add NAME.",
        "任何人都可访问 {host} 上的服务器；请先添加令牌：gliomark token add NAME。",
    ),
    # ---- stored records and database --------------------------------------------------------------------
    "stored-missing": (
        "{file}, which the server kept of this study, is gone: restore the data folder from a backup, or upload the study again.",
        "服务器保存的该检查文件 {file} 已不存在：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "stored-damaged": (
        "{file}, which the server kept of this study, is damaged ({reason}): restore the data folder from a backup, or upload the study again.",
        "服务器保存的该检查文件 {file} 已损坏（{reason}）：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "stored-newer": (
        "{file} was kept by a newer version of gliomark: start that version on this data folder.",
        "{file} 由更新版本的 gliomark 保存：请用该版本打开此数据文件夹。",
    ),
    "stored-older": (
        "{file}, which an earlier version of gliomark kept of this study, cannot be taken over ({reason}): restore the data folder from a backup, or upload the study again.",
        "该检查由早期版本的 gliomark 保存的文件 {file} 无法转换（{reason}）：请从备份恢复数据文件夹，或重新上传影像。",
    ),
    "database-unopened": (
        "The database cannot be opened ({reason}); check its URL.",
        "无法打开数据库（{reason}）；请检查其 URL。",
    ),
    "database-newer": (
        "The database was used by a newer version of gliomark: start that version, or restore the backup from before it.",
        "数据库已被更新版本的 gliomark 使用：请启动该版本，或恢复升级前的备份。",
    ),
    "database-foreign": (
        "The database was made by another version of gliomark or by another program, with tables that are not known: name another --data folder or --database and keep this one for the program that made it.",
        "数据库由其他版本的 gliomark 或其他程序创建，其中的表无法识别：请另行指定 --data 文件夹或 --database，并保留此数据库供原程序使用。",
    ),
    "database-not-upgraded": (
        "The database could not be brought to this version ({reason}); it is as it was: start the version before, and tell who maintains gliomark.",
        "数据库未能升级到此版本（{reason}），内容保持原样：请先使用之前的版本，并告知 gliomark 的维护者。",
    ),
    # ---- files ------------------------------------------------------------------------------------------
    "file-disk-full": (
        "{path} could not be written: the disk is full or the quota is used up. Free some space and try again; "
        "what was written before is unchanged.",
        "无法写入 {path}：磁盘已满或配额已用尽。请释放空间后重试；此前写入的内容保持不变。",
    ),
    "file-too-large": (
        "{path} could not be written: it is larger than this file system or account may hold. Choose another place.",
        "无法写入 {path}：文件超过该文件系统或账户允许的大小；请另选位置。",
    ),
    "file-system-read-only": (
        "{path} could not be written: the file system is read-only. Choose another place.",
        "无法写入 {path}：该文件系统为只读；请另选位置。",
    ),
    "file-not-permitted": (
        "{path}: permission denied. Choose another place, or have the folder's owner give access.",
        "{path}：没有访问权限。请另选位置，或请文件夹所有者授权。",
    ),
    "file-name-too-long": (
        "{path}: the name is too long for the file system. Choose a shorter one.",
        "{path}：名称超过文件系统允许的长度；请使用较短的名称。",
    ),
    "file-disk-fault": (
        "{path}: the disk reports a fault ({reason}). Choose another disk, and have this one checked.",
        "{path}：磁盘报告错误（{reason}）。请改用其他磁盘，并检查该磁盘。",
    ),
}  # fmt: skip


MAX_QUOTED_CHARACTERS = 300  # characters of a cell, a name or a column that a sentence quotes


class Message(str):
    """One sentence: its English text, with the code and the parameters that it was made from."""

    code: str
    parameters: Mapping[str, Any]

    def __new__(cls, code: str, parameters: Mapping[str, Any]) -> Message:
        """Raises KeyError for an unknown code or a parameter that the text needs and did not get."""
        self = super().__new__(cls, MESSAGES[code][0].format_map(parameters))
        self.code, self.parameters = code, dict(parameters)
        return self

    def __reduce__(self) -> tuple[Callable[..., str], tuple[Any, ...]]:
        """Code and parameters outlast pickling and copying; what an older version kept keeps its text at least."""
        return _rebuild_message, (self.code, self.parameters, str(self))


def message(code: str, /, **parameters: Any) -> Message:
    """The sentence of this code with these parameters filled in; a file's own words are cut where they are endless."""
    return Message(code, {name: _truncate_text(value) for name, value in parameters.items()})


def _truncate_text(value: Any) -> Any:
    if isinstance(value, Message) or not isinstance(value, str) or len(value) <= MAX_QUOTED_CHARACTERS:
        return value
    return f"{value[:MAX_QUOTED_CHARACTERS]}…"


def render_message(text: str, language: Language) -> str:
    """A message in the reader's language; any other text, such as a file's own words, as it is."""
    if not isinstance(text, Message):
        return text
    filled = {name: _render_value(value, language) for name, value in text.parameters.items()}
    return MESSAGES[text.code][LANGUAGES.index(language)].format_map(filled)


def to_message_record(text: str) -> dict[str, Any]:
    """A sentence as JSON: ``text`` in English and, for a message, ``code`` and ``parameters``."""
    record: dict[str, Any] = {"text": str(text)}
    if isinstance(text, Message):
        parameters = {name: _to_json_value(value) for name, value in text.parameters.items()}
        record |= {"code": text.code, "parameters": parameters}
    return record


def from_message_record(record: Mapping[str, Any]) -> str:
    """The sentence of ``to_record``; its English text alone where this version does not know the code."""
    try:
        parameters = {name: _from_json_value(value) for name, value in record["parameters"].items()}
    except (KeyError, TypeError, AttributeError):
        return str(record["text"])
    return _rebuild_message(record.get("code", ""), parameters, str(record["text"]))


def find_message_for_text(text: str, *codes: str, **parameters: Any) -> str:
    """The message among these codes whose English is exactly this text, such as a weights file's; else the text."""
    for code in codes:
        if code in MESSAGES and MESSAGES[code][0].format_map(parameters) == text:
            return Message(code, parameters)
    return text


def find_level_message(level: str) -> str:
    """A marker's level as a message where it is one of the known words."""
    return find_message_for_text(level, f"level-{level.strip().lower().replace(' ', '-')}")


def describe_level(level: str, is_borderline: bool, language: Language) -> str:
    """How a level is said to a person: "mutant", or "borderline, leaning mutant"."""
    word = find_level_message(level)
    return render_message(message("level-borderline", level=word) if is_borderline else word, language)


def format_percent(probability: float | None) -> str:
    """Whole per cent; never 0 or 100, which no model can promise."""
    if probability is None:
        return "–"
    value = round(100 * probability)
    return "< 1 %" if value < 1 else "> 99 %" if value > 99 else f"{value} %"


def collect_message_records(value: Any) -> list[dict[str, Any]]:
    """The records of all messages in plain data, each once, so that its reader can say them in another language."""
    record_by_text: dict[str, dict[str, Any]] = {}
    for text in _iterate_texts(value):
        if isinstance(text, Message):
            record_by_text.setdefault(str(text), to_message_record(text))
    return list(record_by_text.values())


def restore_messages(value: Any, records: Iterable[Mapping[str, Any]]) -> Any:
    """Plain data with every text that ``collect`` has a record of a message again."""
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
    """The message; its text alone where this version does not know the code or misses a parameter."""
    try:
        return Message(code, parameters)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return text


def _to_json_value(value: Any) -> Any:
    """A parameter as JSON can hold it: numbers of numpy as numbers, paths and errors as text."""
    if isinstance(value, Message):
        return to_message_record(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) and isfinite(value) else str(value)


def _from_json_value(value: Any) -> Any:
    return from_message_record(value) if isinstance(value, Mapping) else value
