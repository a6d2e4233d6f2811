"""Every sentence that a person may read, as data: a code with its parameters, rendered in English or Chinese.

``message("sequence-missing", patient=..., ...)`` makes one. It is a ``str``, its English text, so that errors,
logs and tables can use it as it is; a report, a window or a page renders it in its reader's language with
``render``. Across a process or a network it travels as its code and parameters (``to_record``,
``from_record``), never as a sentence to be recognised again.

The texts are format strings: ``{count}``, ``{size:.3g}``. A parameter may be a message itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# By section, as the rooms lie; code: (English, Chinese). What is wrong, where, and what to do.
MESSAGES: Mapping[str, tuple[str, str]] = {
    # ---- folders and pictures ---------------------------------------------------------------------------
    # ---- volumes: NIfTI, MetaImage, NRRD ----------------------------------------------------------------
    # ---- names: which image is which --------------------------------------------------------------------
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    # ---- lesion masks -----------------------------------------------------------------------------------
    # ---- tables and labels ------------------------------------------------------------------------------
    # ---- preparation: registration, brain, slices -------------------------------------------------------

    "sequence-missing": (
        "{source}: the sequence {missing} is missing (found: {found}); add it, or choose a model that does not need "
        "it.",
        "{source}：缺少 {missing} 序列（已找到：{found}）；请补充该序列，或选择不需要它的模型。",
    ),
    "no-brain": (
        "No brain was found in the image ({reason}); is this an axial head MRI?",
        "影像中未找到脑组织（{reason}）；这是横断面头部磁共振吗？",
    ),
    "little-brain": (
        "Only {volume:.0f} ml of brain were found in the image; is this a whole axial head MRI?",
        "影像中仅找到 {volume:.0f} 毫升脑组织；这是完整的横断面头部磁共振吗？",
    ),
    "no-slice-with-brain": (
        "No slice shows enough brain (8 cm2); is this an axial head MRI?",
        "没有任何层面含足够的脑组织（8 平方厘米）；这是横断面头部磁共振吗？",
    ),
    "no-skull": (
        "The images came without a skull; skull stripping was left out.",
        "影像不含颅骨，未作去颅骨处理。",
    ),
    # ---- prediction -------------------------------------------------------------------------------------

    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    "no-lesion-in-part": (
        "No lesion was found in the part of the brain that the images cover ({share} of it); the rest was not "
        "examined. No marker is predicted.",
        "在影像覆盖的脑区（约占全脑的 {share}）内未发现病灶；其余脑区未检查。因此未预测标志物。",
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
        "缺少 {wanted}，网络看到的是 {shown}，而网络并未为此训练：请核对轮廓。模型不预测任何标志物。",
    ),
    "marker-on-stand-in": (
        "The networks saw {shown} in place of {wanted}. The marker was never validated on such images, so neither a "
        "level nor a probability is given.",
        "网络看到的是 {shown} 而非 {wanted}。该标志物从未在此类影像上验证，因此不给出判断和概率。",
    ),
    "marker-not-validated": (
        "This model has not been validated for the marker on patients it had not seen, so neither a level nor a "
        "probability is given.",
        "该模型对此标志物的预测尚未在未参与训练的患者上验证，因此不给出判断和概率。",
    ),
    "marker-at-chance": (
        "No better than chance in validation (AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}; {patients} patients, "
        "{positives} positive), so neither a level nor a probability is given.",
        "验证中不优于随机猜测（AUC {auc:.2f}，95% 置信区间 {low:.2f} 至 {high:.2f}；{patients} 例患者，阳性 "
        "{positives} 例），因此不给出判断和概率。",
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
    "another-patient": (
        "The clinical row is patient {row}'s but the images are patient {patient}'s; give the row of the same patient.",
        "临床信息属于患者 {row}，而影像属于患者 {patient}；请提供同一患者的信息。",
    ),
    "age-impossible": (
        "The age {age} of patient {patient} is no number of years from 0 to {oldest}; correct it, or give None if it is "
        "unknown.",
        "患者 {patient} 的年龄 {age} 不是 0 至 {oldest} 岁之间的数字；请更正，未知时请留空（None）。",
    ),
    "sex-impossible": (
        "The sex {sex} of patient {patient} is not understood; give 0 for male, 1 for female or None if it is unknown.",
        "无法识别患者 {patient} 的性别 {sex}；请填 0（男）、1（女），未知时请留空（None）。",
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
        "在 {cohort} 的 {patients} 例患者（阳性 {positives} 例）上交叉验证，每例均由未见过该患者的模型判断：AUC "
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
        "取病灶最大处附近 2 个层面的均值；另一侧相邻层面无可判断的病灶。",
    ),
    "fusion-near-1": (
        "The slice with the largest lesion alone; its neighbours show no lesion to judge.",
        "仅取病灶最大的层面；其相邻层面无可判断的病灶。",
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

    "intended-use": (
        "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR",
        "仅供演示与科研；不是医疗器械；以 T1C 与 FLAIR 的低级别胶质瘤训练",
    ),
    "licence": (
        "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; images TCIA TCGA-LGG, CC BY "
        "3.0",
        "CC BY-NC-SA 4.0（非商业、相同方式共享），承自训练掩膜；影像来自 TCIA TCGA-LGG，CC BY 3.0",
    ),
    "training-cohort": (
        "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019: {patients} patients for the outline, at least "
        "{fewest} per marker",
        "TCGA-LGG，采用 Buda 等（2019）的 FLAIR 异常区掩膜：勾画用 {patients} 例患者，每个标志物至少 {fewest} 例",
    ),
    # ---- results ----------------------------------------------------------------------------------------
    "out-not-writable": (
        "{folder}: the output folder cannot be written ({reason}); choose another.",
        "无法写入输出文件夹 {folder}（{reason}）；请另选一个。",
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
        '处理进程在此中断 {attempts} 次；请重试，并告知管理员。',
    ),
    "model-gone": (
        "The server has no model '{model}' any more; upload the study for another one.",
        '服务器已没有模型“{model}”；请为其他模型重新上传。',
    ),
    "other-weights": (
        'The study was prepared for other weights; upload it again.',
        '该影像是为其他权重准备的；请重新上传。',
    ),
    "answer-of-other-weights": (
        'The answer was given by other weights, which are not here any more; predict again.',
        '该结果由其他权重给出，现已不在；请重新预测。',
    ),
    "not-computed": (
        'This could not be computed ({kind}: {reason}).',
        '无法完成计算（{kind}：{reason}）。',
    ),
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


def known(text: str, *codes: str, **parameters: Any) -> str:
    """The message among these codes whose English is exactly this text, such as a weights file's; else the text."""
    for code in codes:
        if code in MESSAGES and MESSAGES[code][0].format_map(parameters) == text:
            return Message(code, parameters)
    return text


def level_word(level: str) -> str:
    """A marker's level as a message where it is one of the known words."""
    return known(level, f"level-{level.strip().lower().replace(' ', '-')}")


def level_in_words(level: str, is_borderline: bool, language: Language) -> str:
    """How a level is said to a person: "mutant", or "borderline, leaning mutant"."""
    word = level_word(level)
    return render(message("level-borderline", level=word) if is_borderline else word, language)


def percent(probability: float | None) -> str:
    """Whole per cent; never 0 or 100, which no model can promise."""
    if probability is None:
        return "–"
    value = round(100 * probability)
    return "< 1 %" if value < 1 else "> 99 %" if value > 99 else f"{value} %"


def collect(value: Any) -> list[dict[str, Any]]:
    """The records of all messages in plain data, each once, so that its reader can say them in another language."""
    found: dict[str, dict[str, Any]] = {}
    for text in _texts(value):
        if isinstance(text, Message):
            found.setdefault(str(text), to_record(text))
    return list(found.values())


def restore(value: Any, records: Iterable[Mapping[str, Any]]) -> Any:
    """Plain data with every text that ``collect`` has a record of a message again."""
    messages = {record["text"]: from_record(record) for record in records}
    return _restored(value, messages)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _restored(value: Any, messages: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return messages.get(value, value)
    if isinstance(value, Mapping):
        return {name: _restored(part, messages) for name, part in value.items()}
    return [_restored(part, messages) for part in value] if isinstance(value, list | tuple) else value


def _render_value(value: Any, language: Language) -> Any:
    return render(value, language) if isinstance(value, Message) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, Message):
        return to_record(value)
    return str(value) if isinstance(value, PurePath) else value


def _from_json(value: Any) -> Any:
    return from_record(value) if isinstance(value, Mapping) else value
