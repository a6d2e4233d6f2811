<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
<context>
    <name>FetchDialog</name>
    <message>
        <source>Fetch from the PACS</source>
        <translation>从 PACS 获取</translation>
    </message>
    <message>
        <source>Accession number</source>
        <translation>检查号</translation>
    </message>
    <message>
        <source>or patient id</source>
        <translation>或患者编号</translation>
    </message>
    <message>
        <source>PACS address</source>
        <translation>PACS 地址</translation>
    </message>
    <message>
        <source>AE title of this computer</source>
        <translation>本机 AE Title</translation>
    </message>
    <message>
        <source>Port of this computer</source>
        <translation>本机端口</translation>
    </message>
    <message>
        <source>User</source>
        <translation>用户名</translation>
    </message>
    <message>
        <source>Password</source>
        <translation>密码</translation>
    </message>
    <message>
        <source>PACS: AET@host:port, or the address of a DICOMweb service. The port is needed only if the PACS does not support C-GET; user and password only for DICOMweb. Only MR images, masks and structure sets are fetched.</source>
        <translation>PACS 地址：AET@主机:端口，或 DICOMweb 服务的网址。仅当 PACS 不支持 C-GET 时才需填写本机端口；用户名和密码仅用于 DICOMweb。只获取磁共振影像、掩膜和结构集。</translation>
    </message>
    <message>
        <source>Several studies fit. Choose one.</source>
        <translation>有多个检查符合条件，请选择一个。</translation>
    </message>
    <message>
        <source>Date</source>
        <translation>日期</translation>
    </message>
    <message>
        <source>Description</source>
        <translation>描述</translation>
    </message>
    <message>
        <source>Patient id</source>
        <translation>患者编号</translation>
    </message>
    <message>
        <source>Fetch</source>
        <translation>获取</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
</context>
<context>
    <name>FollowUpDialog</name>
    <message>
        <source>Close</source>
        <translation>关闭</translation>
    </message>
    <message>
        <source>Two examinations</source>
        <translation>两次检查</translation>
    </message>
    <message>
        <source>Sequence</source>
        <translation>序列</translation>
    </message>
    <message>
        <source>Both sizes are of the outlines of the last predictions. Check and correct the outlines before you judge a change: the difference of two outlines is part of it.</source>
        <translation>两次的大小均来自最近一次预测所用的勾画。判断变化之前请先核对并修改勾画：变化中包含两次勾画本身的差异。</translation>
    </message>
</context>
<context>
    <name>ImagePanel</name>
    <message>
        <source>Coronal</source>
        <translation>冠状位</translation>
    </message>
    <message>
        <source>Sagittal</source>
        <translation>矢状位</translation>
    </message>
    <message>
        <source>Previous slice</source>
        <translation>上一层</translation>
    </message>
    <message>
        <source>Next slice</source>
        <translation>下一层</translation>
    </message>
    <message>
        <source>Slice</source>
        <translation>层面</translation>
    </message>
    <message>
        <source>Bars: lesion area on each slice. Orange with a dot: slices used for the prediction.</source>
        <translation>柱高：各层面病灶面积。橙色带圆点：用于预测的层面。</translation>
    </message>
    <message>
        <source>Sequence</source>
        <translation>序列</translation>
    </message>
    <message>
        <source>{} (in place of {})</source>
        <translation>{}（代替 {}）</translation>
    </message>
    <message>
        <source>Coloured: pixels that raise the probability of the positive class, on slices used for the prediction.</source>
        <translation>彩色：用于预测的层面上使阳性类别概率升高的像素。</translation>
    </message>
    <message>
        <source>Zoom: Ctrl and wheel. Move: drag with the middle button.</source>
        <translation>缩放：Ctrl+滚轮；移动：按住中键拖动。</translation>
    </message>
    <message>
        <source>Replace the outline on the undrawn slices between those that you have corrected by interpolated shapes</source>
        <translation>用插值所得的形状替换已修改层面之间未修改层面的勾画</translation>
    </message>
    <message>
        <source>Nothing to fill: correct the outline on two slices first; the slices between them can then be filled</source>
        <translation>无可填充的层面：请先修改两个层面的勾画，其间的层面即可填充</translation>
    </message>
    <message>
        <source>Nothing to fill: there is no undrawn slice between two corrected slices that show the lesion</source>
        <translation>无可填充的层面：两个有病灶的已修改层面之间没有未修改的层面</translation>
    </message>
    <message>
        <source>Drag a line to measure it; drag its ends to change it. Delete removes it, Escape ends measuring.</source>
        <translation>拖出一条线即可测量，拖动两端可修改。Delete 删除，Esc 结束测量。</translation>
    </message>
    <message>
        <source>Click or drag in an image to move the other planes. Window and level: right button.</source>
        <translation>在图像上点击或拖动可移动其他切面。窗宽窗位：右键拖动。</translation>
    </message>
    <message>
        <source>Pixel size and slice spacing of image files are unknown: lengths and proportions are estimates.</source>
        <translation>图片文件的像素大小和层间距未知：长度和比例为估计值。</translation>
    </message>
    <message>
        <source>Predict again with my outline</source>
        <translation>按我的勾画重新预测</translation>
    </message>
    <message>
        <source>Back to the model&apos;s outline</source>
        <translation>恢复模型的勾画</translation>
    </message>
    <message>
        <source>Open a mask…</source>
        <translation>打开掩膜…</translation>
    </message>
    <message>
        <source>Load a mask of another program: NIfTI, DICOM SEG, RTSTRUCT, or pictures of the slices</source>
        <translation>载入其他软件的掩膜：NIfTI、DICOM SEG、RTSTRUCT 或各层面的图片</translation>
    </message>
    <message>
        <source>Masks</source>
        <translation>掩膜</translation>
    </message>
    <message>
        <source>Open a mask</source>
        <translation>打开掩膜</translation>
    </message>
    <message>
        <source>All files</source>
        <translation>所有文件</translation>
    </message>
    <message>
        <source>Use the mask in the folder</source>
        <translation>使用文件夹中的掩膜</translation>
    </message>
    <message>
        <source>{} was supplied with the images. Check it before you predict with it.</source>
        <translation>{} 随影像提供。请先核对，再据此预测。</translation>
    </message>
    <message>
        <source>loading</source>
        <translation>正在加载</translation>
    </message>
    <message>
        <source>The images appear here once they are prepared.</source>
        <translation>影像处理完成后显示在此处。</translation>
    </message>
    <message>
        <source>Drop a patient&apos;s folder here to begin.</source>
        <translation>将患者文件夹拖到此处即可开始。</translation>
    </message>
    <message>
        <source>Slice {}  ({} of {})</source>
        <translation>层面 {}（第 {} / {} 层）</translation>
    </message>
    <message>
        <source>You have changed the outline.</source>
        <translation>您已修改勾画。</translation>
    </message>
    <message>
        <source>Your outline is shown.</source>
        <translation>当前显示您的勾画。</translation>
    </message>
    <message>
        <source>Slice: wheel or arrow keys. Window and level: drag with the right button.</source>
        <translation>切换层面：滚轮或方向键；调节窗宽窗位：按住右键拖动。</translation>
    </message>
</context>
<context>
    <name>ImageToolbar</name>
    <message>
        <source>Reset contrast</source>
        <translation>重置窗宽窗位</translation>
    </message>
    <message>
        <source>Restore the initial window and level. Drag with the right mouse button to change them.</source>
        <translation>恢复初始窗宽窗位。按住鼠标右键拖动可调节。</translation>
    </message>
    <message>
        <source>Outline</source>
        <translation>轮廓</translation>
    </message>
    <message>
        <source>Show or hide the lesion outline</source>
        <translation>显示或隐藏病灶轮廓</translation>
    </message>
    <message>
        <source>Opacity</source>
        <translation>不透明度</translation>
    </message>
    <message>
        <source>Opacity of the outline</source>
        <translation>轮廓的不透明度</translation>
    </message>
    <message>
        <source>Brush</source>
        <translation>画笔</translation>
    </message>
    <message>
        <source>Add to the outline</source>
        <translation>添加勾画</translation>
    </message>
    <message>
        <source>Eraser</source>
        <translation>橡皮擦</translation>
    </message>
    <message>
        <source>Erase from the outline</source>
        <translation>擦除勾画</translation>
    </message>
    <message>
        <source>Measure</source>
        <translation>测量</translation>
    </message>
    <message>
        <source>Measure a length in mm: drag a line on the slice (M)</source>
        <translation>测量长度（mm）：在层面上拖出一条线（M）</translation>
    </message>
    <message>
        <source>The server does not state the pixel size of this study</source>
        <translation>服务器未提供该检查的像素大小</translation>
    </message>
    <message>
        <source>Three planes</source>
        <translation>三个切面</translation>
    </message>
    <message>
        <source>Show or hide the coronal and sagittal plane beside the axial one (P)</source>
        <translation>在轴位旁显示或隐藏冠状位和矢状位（P）</translation>
    </message>
    <message>
        <source>The other planes need several slices of known spacing</source>
        <translation>其他切面需要多个层面和已知的层间距</translation>
    </message>
    <message>
        <source>Fill slices between</source>
        <translation>填充中间层面</translation>
    </message>
    <message>
        <source>Size</source>
        <translation>大小</translation>
    </message>
    <message>
        <source>Size of brush and eraser; keys [ and ]</source>
        <translation>画笔与橡皮擦的大小；快捷键 [ 和 ]</translation>
    </message>
    <message>
        <source>Size of brush and eraser</source>
        <translation>画笔与橡皮擦的大小</translation>
    </message>
    <message>
        <source>Show all of the brain again (double click)</source>
        <translation>重新显示整个脑部（双击）</translation>
    </message>
    <message>
        <source>Undo the last stroke</source>
        <translation>撤销上一笔</translation>
    </message>
    <message>
        <source>Redo the stroke</source>
        <translation>重做</translation>
    </message>
</context>
<context>
    <name>InputPanel</name>
    <message>
        <source>Choose the patient&apos;s folder first.</source>
        <translation>请先选择患者文件夹。</translation>
    </message>
    <message>
        <source>Enter age and sex in step 2, or tick “Age or sex unknown”.</source>
        <translation>请在第 2 步填写年龄和性别，或勾选“年龄或性别未知”。</translation>
    </message>
    <message>
        <source>Folder of the patient, or of one sequence in it</source>
        <translation>患者文件夹，或其中某一序列的文件夹</translation>
    </message>
    <message>
        <source>Table with the columns id, age, sex</source>
        <translation>含 id、age、sex 列的表格</translation>
    </message>
    <message>
        <source>Tables (*.csv *.txt *.tsv *.xlsx);;All files (*)</source>
        <translation>表格 (*.csv *.txt *.tsv *.xlsx);;所有文件 (*)</translation>
    </message>
    <message>
        <source>The patient&apos;s images</source>
        <translation>患者影像</translation>
    </message>
    <message>
        <source>{} is missing; {} is used in its place. No marker is predicted.</source>
        <translation>缺少 {}，以 {} 代替。不预测标志物。</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>Choose folder…</source>
        <translation>选择文件夹…</translation>
    </message>
    <message>
        <source>Another patient…</source>
        <translation>换一位患者…</translation>
    </message>
    <message>
        <source>Recent folders</source>
        <translation>最近打开的文件夹</translation>
    </message>
    <message>
        <source>Earlier patients…</source>
        <translation>既往患者…</translation>
    </message>
    <message>
        <source>Fetch from the PACS…</source>
        <translation>从 PACS 获取…</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>模型</translation>
    </message>
    <message>
        <source>Clear list</source>
        <translation>清空列表</translation>
    </message>
    <message>
        <source>The models are loading. You can already choose the patient&apos;s folder, and enter age and sex.</source>
        <translation>模型正在加载。现在就可以选择患者文件夹，并填写年龄和性别。</translation>
    </message>
    <message>
        <source>The models are loading. The images are sent as soon as the server is ready.</source>
        <translation>模型正在加载。服务器就绪后会立即发送影像。</translation>
    </message>
    <message>
        <source>Waiting for the server to start</source>
        <translation>等待服务器启动</translation>
    </message>
    <message>
        <source>Packing the files</source>
        <translation>正在打包文件</translation>
    </message>
    <message>
        <source>Uploading the images</source>
        <translation>正在上传影像</translation>
    </message>
    <message>
        <source>The server is reading, registering and preparing the images</source>
        <translation>服务器正在读取、配准和预处理影像</translation>
    </message>
    <message>
        <source>{} · {} slices</source>
        <translation>{} · {} 层</translation>
    </message>
    <message>
        <source>Drop the patient&apos;s folder here, or choose it. Choosing its T1c folder is enough.</source>
        <translation>将患者文件夹拖到此处，或点击选择；选择其中的 T1c 文件夹即可。</translation>
    </message>
    <message>
        <source>Age and sex</source>
        <translation>年龄与性别</translation>
    </message>
    <message>
        <source>From a table…</source>
        <translation>从表格读取…</translation>
    </message>
    <message>
        <source>Age</source>
        <translation>年龄</translation>
    </message>
    <message>
        <source>years</source>
        <translation>岁</translation>
    </message>
    <message>
        <source>Age in years</source>
        <translation>年龄（岁）</translation>
    </message>
    <message>
        <source>Sex</source>
        <translation>性别</translation>
    </message>
    <message>
        <source>male</source>
        <translation>男</translation>
    </message>
    <message>
        <source>female</source>
        <translation>女</translation>
    </message>
    <message>
        <source>unknown</source>
        <translation>未知</translation>
    </message>
    <message>
        <source>From {}</source>
        <translation>来自 {}</translation>
    </message>
    <message>
        <source>Age or sex unknown (not validated)</source>
        <translation>年龄或性别未知（未经验证）</translation>
    </message>
    <message>
        <source>Is there an enhancing focus?</source>
        <translation>是否有强化灶？</translation>
    </message>
    <message>
        <source>Enhancing focus</source>
        <translation>强化灶</translation>
    </message>
    <message>
        <source>yes</source>
        <translation>有</translation>
    </message>
    <message>
        <source>no</source>
        <translation>无</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>未说明</translation>
    </message>
    <message>
        <source>Your finding decides IDH: yes means wild type, no means mutant. Not stated: the model decides.</source>
        <translation>您的所见决定 IDH 结果：有强化灶为野生型，无强化灶为突变型；未说明时由模型判断。</translation>
    </message>
    <message>
        <source>Prediction</source>
        <translation>预测</translation>
    </message>
    <message>
        <source>Location of the lesion</source>
        <translation>病灶位置</translation>
    </message>
    <message>
        <source>Also state side, brain region and distances to eloquent areas, approximately, from an atlas</source>
        <translation>同时依据图谱给出大致的左右侧、脑区和与功能区的距离</translation>
    </message>
    <message>
        <source>Predict</source>
        <translation>开始预测</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>等待中</translation>
    </message>
</context>
<context>
    <name>LevelFields</name>
    <message>
        <source>When a level is stated</source>
        <translation>判定规则</translation>
    </message>
    <message>
        <source>A level is stated only where the other one is unlikely; otherwise the result is “cannot tell”. The higher the coverage, the more often. A share of positive patients corrects the probability for your hospital.</source>
        <translation>仅当另一类别不太可能时才给出判定结果，否则结果为“无法判断”；覆盖率越高，“无法判断”越多。填写阳性患者比例可按本院情况校正概率。</translation>
    </message>
    <message>
        <source>Share of “{}” patients ({})</source>
        <translation>“{}”患者比例（{}）</translation>
    </message>
    <message>
        <source>Coverage</source>
        <translation>覆盖率</translation>
    </message>
    <message>
        <source>as in calibration, {} %</source>
        <translation>与校准时相同，{} %</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <source>You have changed the outline but not predicted with it. Discard your changes?</source>
        <translation>您已修改勾画，但尚未据此预测。要放弃修改吗？</translation>
    </message>
    <message>
        <source>Save report</source>
        <translation>保存报告</translation>
    </message>
    <message>
        <source>Saved: {}</source>
        <translation>已保存：{}</translation>
    </message>
    <message>
        <source>Glioma markers from preoperative MRI</source>
        <translation>基于术前磁共振影像的胶质瘤标志物预测</translation>
    </message>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>Research use only. Not a medical device.</source>
        <translation>仅供科研使用，不是医疗器械。</translation>
    </message>
    <message>
        <source>Try again</source>
        <translation>重试</translation>
    </message>
    <message>
        <source>Close this message</source>
        <translation>关闭此消息</translation>
    </message>
    <message>
        <source>Local server</source>
        <translation>本机服务器</translation>
    </message>
    <message>
        <source>starting</source>
        <translation>正在启动</translation>
    </message>
    <message>
        <source>ready</source>
        <translation>就绪</translation>
    </message>
    <message>
        <source>not reachable</source>
        <translation>无法连接</translation>
    </message>
</context>
<context>
    <name>MarkerCard</name>
    <message>
        <source>from the reader&apos;s finding</source>
        <translation>依据阅片者所见</translation>
    </message>
    <message>
        <source>threshold {}</source>
        <translation>阈值 {}</translation>
    </message>
    <message>
        <source>Range across lesion slices: {} to {}</source>
        <translation>各病灶层面的概率范围：{} 至 {}</translation>
    </message>
    <message>
        <source>{} on every lesion slice</source>
        <translation>各病灶层面均为 {}</translation>
    </message>
    <message>
        <source>For comparison, the model&apos;s probability of “{}”</source>
        <translation>供对照：模型预测“{}”的概率</translation>
    </message>
    <message>
        <source>Probability of “{}”</source>
        <translation>“{}”的概率</translation>
    </message>
    <message>
        <source>Threshold {}</source>
        <translation>阈值 {}</translation>
    </message>
    <message>
        <source>Accuracy of the reader&apos;s finding: {}</source>
        <translation>阅片者所见的准确性：{}</translation>
    </message>
    <message>
        <source>Validation: {}</source>
        <translation>验证结果：{}</translation>
    </message>
    <message>
        <source>Shows how much the prediction depends on the choice of slices. Not a confidence interval.</source>
        <translation>反映预测结果对层面选择的依赖程度；并非置信区间。</translation>
    </message>
    <message>
        <source>Slices used for the prediction: {}</source>
        <translation>用于预测的层面：{}</translation>
    </message>
    <message>
        <source>Slices used for the probability: {}</source>
        <translation>用于计算概率的层面：{}</translation>
    </message>
    <message>
        <source>Computing Grad-CAM…</source>
        <translation>正在生成 Grad-CAM…</translation>
    </message>
    <message>
        <source>Hide Grad-CAM</source>
        <translation>隐藏 Grad-CAM</translation>
    </message>
    <message>
        <source>Show Grad-CAM</source>
        <translation>显示 Grad-CAM</translation>
    </message>
    <message>
        <source>Pixels of these slices that raise the probability of the positive class</source>
        <translation>这些层面中使阳性类别概率升高的像素</translation>
    </message>
    <message>
        <source>cannot tell: {} to {}</source>
        <translation>无法判断：{} 至 {}</translation>
    </message>
    <message>
        <source>{} (before calibration)</source>
        <translation>{}（校准前）</translation>
    </message>
</context>
<context>
    <name>ResultPanel</name>
    <message>
        <source>Prediction</source>
        <translation>预测结果</translation>
    </message>
    <message>
        <source>The input has changed since this prediction. Predict again.</source>
        <translation>得出此结果后输入已更改，请重新预测。</translation>
    </message>
    <message>
        <source>Save report</source>
        <translation>保存报告</translation>
    </message>
    <message>
        <source>Web page (HTML)…</source>
        <translation>网页（HTML）…</translation>
    </message>
    <message>
        <source>PDF…</source>
        <translation>PDF 文档…</translation>
    </message>
    <message>
        <source>DICOM results (zip)…</source>
        <translation>DICOM 结果（zip）…</translation>
    </message>
    <message>
        <source>Outline as structure set (RTSTRUCT)…</source>
        <translation>轮廓结构集（RTSTRUCT）…</translation>
    </message>
    <message>
        <source>The prediction is being computed. You can view the images meanwhile.</source>
        <translation>正在预测，期间可继续浏览影像。</translation>
    </message>
    <message>
        <source>The predicted markers appear here.</source>
        <translation>各标志物的预测结果将显示在此处。</translation>
    </message>
    <message>
        <source>enhancing focus: yes</source>
        <translation>强化灶：有</translation>
    </message>
    <message>
        <source>enhancing focus: no</source>
        <translation>强化灶：无</translation>
    </message>
    <message>
        <source>age unknown</source>
        <translation>年龄未知</translation>
    </message>
    <message>
        <source>{} years</source>
        <translation>{} 岁</translation>
    </message>
    <message>
        <source>sex unknown</source>
        <translation>性别未知</translation>
    </message>
    <message>
        <source>male</source>
        <translation>男</translation>
    </message>
    <message>
        <source>female</source>
        <translation>女</translation>
    </message>
    <message>
        <source>enhancing focus: not stated</source>
        <translation>强化灶：未说明</translation>
    </message>
    <message>
        <source>your outline</source>
        <translation>您的勾画</translation>
    </message>
    <message>
        <source>the model&apos;s outline</source>
        <translation>模型的勾画</translation>
    </message>
    <message>
        <source>Based on: {}</source>
        <translation>依据：{}</translation>
    </message>
    <message>
        <source>No lesion was outlined. If a lesion is visible, outline it with the brush and predict again.</source>
        <translation>未勾画出病灶。若影像上可见病灶，请用画笔勾画后重新预测。</translation>
    </message>
    <message>
        <source>Lesion: about {} (the pixel size of image files is unknown)</source>
        <translation>病灶大小：约 {}（图片文件不含像素大小信息）</translation>
    </message>
    <message>
        <source>Lesion: {}</source>
        <translation>病灶大小：{}</translation>
    </message>
    <message>
        <source>Model: {} ({}…)</source>
        <translation>模型：{}（{}…）</translation>
    </message>
</context>
<context>
    <name>ServerDialog</name>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>This computer (a local server starts and stops with the program)</source>
        <translation>本机（本机服务器随程序启动和停止）</translation>
    </message>
    <message>
        <source>A server on the network</source>
        <translation>网络中的服务器</translation>
    </message>
    <message>
        <source>Prediction server</source>
        <translation>预测服务器</translation>
    </message>
    <message>
        <source>The images are sent to the selected server. The access token is issued by its administrator and stored in your settings file.</source>
        <translation>影像将发送至所选服务器。访问令牌由服务器管理员发放，保存在您的设置文件中。</translation>
    </message>
    <message>
        <source>Show</source>
        <translation>显示</translation>
    </message>
    <message>
        <source>Address</source>
        <translation>地址</translation>
    </message>
    <message>
        <source>Access token</source>
        <translation>访问令牌</translation>
    </message>
    <message>
        <source>Enter an address such as https://server.hospital:8443.</source>
        <translation>请输入形如 https://server.hospital:8443 的地址。</translation>
    </message>
</context>
<context>
    <name>StudyListDialog</name>
    <message>
        <source>Earlier patients</source>
        <translation>既往患者</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>患者</translation>
    </message>
    <message>
        <source>Received</source>
        <translation>接收时间</translation>
    </message>
    <message>
        <source>State</source>
        <translation>状态</translation>
    </message>
    <message>
        <source>Open</source>
        <translation>打开</translation>
    </message>
    <message>
        <source>Remove…</source>
        <translation>删除…</translation>
    </message>
    <message>
        <source>Compare two</source>
        <translation>比较两次检查</translation>
    </message>
    <message>
        <source>Select two examinations with Ctrl</source>
        <translation>按住 Ctrl 选择两次检查</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>关闭</translation>
    </message>
    <message>
        <source>corrected outline</source>
        <translation>勾画已修改</translation>
    </message>
    <message>
        <source>Remove the images, outlines and predictions of {} from the server? This cannot be undone.</source>
        <translation>要从服务器删除 {} 的影像、勾画和预测结果吗？此操作无法撤销。</translation>
    </message>
</context>
<context>
    <name>Trouble</name>
    <message>
        <source>The server at {} does not respond. Check that it is running and reachable over the network.</source>
        <translation>服务器 {} 没有响应：请检查服务器是否运行、网络是否连通。</translation>
    </message>
    <message>
        <source>The connection to the server at {} was lost before the request finished.</source>
        <translation>与服务器 {} 的连接在请求完成前中断。</translation>
    </message>
    <message>
        <source>The server rejected the access token. Enter a valid one in the settings.</source>
        <translation>服务器拒绝了该访问令牌：请在设置中填写有效令牌。</translation>
    </message>
    <message>
        <source>The access token does not permit this action: {}</source>
        <translation>该访问令牌无此权限：{}</translation>
    </message>
    <message>
        <source>This computer does not trust the certificate of the server at {}; nothing was sent.</source>
        <translation>本机不信任服务器 {} 的证书，未发送任何数据。</translation>
    </message>
    <message>
        <source>The address {} does not belong to a gliomark server. Check it in the settings.</source>
        <translation>{} 不是 gliomark 服务器的地址：请在设置中检查。</translation>
    </message>
    <message>
        <source>{}</source>
        <translation>{}</translation>
    </message>
    <message>
        <source>The server reported an internal error (status {}). Try again.</source>
        <translation>服务器内部错误（状态码 {}），请重试。</translation>
    </message>
    <message>
        <source>The local server could not be started ({}). Install gliomark with its server component, or choose another server in the settings.</source>
        <translation>无法启动本机服务器（{}）：请安装 gliomark 的服务器组件，或在设置中选择其他服务器。</translation>
    </message>
    <message>
        <source>The local server has stopped unexpectedly. Try again to restart it.</source>
        <translation>本机服务器意外停止，请点击“重试”重新启动。</translation>
    </message>
    <message>
        <source>{} could not be saved. Choose another folder.</source>
        <translation>无法保存 {}：请选择其他文件夹。</translation>
    </message>
    <message>
        <source>The server sent an unreadable image. Try again.</source>
        <translation>服务器发来的图像无法读取，请重试。</translation>
    </message>
</context>
<context>
    <name>folder</name>
    <message>
        <source>{} does not exist: choose the patient&apos;s folder.</source>
        <translation>{} 不存在：请选择患者文件夹。</translation>
    </message>
    <message>
        <source>{} contains no files: choose the patient&apos;s folder.</source>
        <translation>{} 中没有文件：请选择患者文件夹。</translation>
    </message>
    <message>
        <source>{} cannot be read ({}).</source>
        <translation>无法读取 {}（{}）。</translation>
    </message>
</context>
<context>
    <name>follow-up</name>
    <message>
        <source>The patient ids differ, {} and {}: check that it is the same patient.</source>
        <translation>患者编号不同（{} 与 {}）：请核对是否为同一患者。</translation>
    </message>
    <message>
        <source>Predict for both examinations to compare the lesion.</source>
        <translation>请先对两次检查都进行预测，再比较病灶。</translation>
    </message>
    <message>
        <source>Image files do not state the pixel size: sizes cannot be compared.</source>
        <translation>图片文件不含像素大小信息，无法比较大小。</translation>
    </message>
    <message>
        <source>The predictions are of different models: predict again with the same.</source>
        <translation>两次预测使用了不同的模型：请用同一模型重新预测。</translation>
    </message>
    <message>
        <source>The lesion was outlined on different sequences, {} and {}: sizes cannot be compared.</source>
        <translation>两次勾画病灶所用的序列不同（{} 与 {}），无法比较大小。</translation>
    </message>
    <message>
        <source>The date of an examination is not known: the one that was received first is on the left.</source>
        <translation>有检查日期未知：先接收的检查显示在左侧。</translation>
    </message>
    <message>
        <source>Both examinations are of the same date: check that they are not the same, and which was first.</source>
        <translation>两次检查日期相同：请核对是否为同一次检查，以及先后顺序。</translation>
    </message>
    <message>
        <source>Volume: {} → {} ({})</source>
        <translation>体积：{} → {}（{}）</translation>
    </message>
    <message>
        <source>Longest diameter in a slice: {} → {}</source>
        <translation>单层最大径：{} → {}</translation>
    </message>
    <message>
        <source>examined on {}</source>
        <translation>检查日期 {}</translation>
    </message>
    <message>
        <source>received {}</source>
        <translation>接收于 {}</translation>
    </message>
</context>
</TS>
