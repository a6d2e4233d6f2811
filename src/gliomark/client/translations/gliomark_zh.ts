<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
<context>
    <name>Images</name>
    <message>
        <source>Reset contrast</source>
        <translation>重置对比度</translation>
    </message>
    <message>
        <source>Back to the first contrast. Drag with the right mouse button to change it.</source>
        <translation>恢复初始窗宽窗位。按住鼠标右键拖动可调节。</translation>
    </message>
    <message>
        <source>Outline</source>
        <translation>轮廓</translation>
    </message>
    <message>
        <source>Show or hide the lesion&apos;s outline</source>
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
        <translation>扩大轮廓</translation>
    </message>
    <message>
        <source>Eraser</source>
        <translation>橡皮</translation>
    </message>
    <message>
        <source>Take away from the outline</source>
        <translation>缩小轮廓</translation>
    </message>
    <message>
        <source>Size</source>
        <translation>大小</translation>
    </message>
    <message>
        <source>Size of brush and eraser; keys [ and ]</source>
        <translation>画笔与橡皮的大小；快捷键 [ 和 ]</translation>
    </message>
    <message>
        <source>Size of brush and eraser</source>
        <translation>画笔与橡皮的大小</translation>
    </message>
    <message>
        <source>Undo the last stroke</source>
        <translation>撤销上一笔</translation>
    </message>
    <message>
        <source>Redo the stroke</source>
        <translation>重做</translation>
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
        <source>Bars: size of the lesion on each slice. Orange with a dot: slices the prediction is based on.</source>
        <translation>柱：各层病灶大小。橙色带圆点：预测所依据的层面。</translation>
    </message>
    <message>
        <source>{} (no {})</source>
        <translation>{}（无 {}）</translation>
    </message>
    <message>
        <source>Coloured: pixels that speak for the positive class, on the slices the prediction is based on.</source>
        <translation>彩色：在预测所依据的层面上支持阳性判断的像素。</translation>
    </message>
    <message>
        <source>Predict again with my outline</source>
        <translation>按我的轮廓重新预测</translation>
    </message>
    <message>
        <source>Back to the model&apos;s outline</source>
        <translation>恢复模型的轮廓</translation>
    </message>
    <message>
        <source>Use the mask in the folder</source>
        <translation>使用文件夹中的掩膜</translation>
    </message>
    <message>
        <source>{} came with the images. Look at it, then predict with it.</source>
        <translation>{} 随影像提供。请先核对，再据此预测。</translation>
    </message>
    <message>
        <source>loading</source>
        <translation>正在加载</translation>
    </message>
    <message>
        <source>The images appear here when they are prepared.</source>
        <translation>影像准备好后显示在此处。</translation>
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
        <translation>您已修改轮廓。</translation>
    </message>
    <message>
        <source>This is your outline.</source>
        <translation>当前为您的轮廓。</translation>
    </message>
    <message>
        <source>Page with the wheel or the arrow keys. Drag with the right button for contrast.</source>
        <translation>滚轮或方向键翻页；按住右键拖动调节对比度。</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <source>You have changed the outline and not predicted with it. Throw your changes away?</source>
        <translation>您已修改轮廓，但尚未据此预测。要放弃修改吗？</translation>
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
        <source>Glioma markers from MRI, before surgery</source>
        <translation>术前磁共振影像预测胶质瘤标志物</translation>
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
        <source>not reached</source>
        <translation>未连接</translation>
    </message>
</context>
<context>
    <name>MarkerCard</name>
    <message>
        <source>from the reader&apos;s finding</source>
        <translation>依据阅片者的判断</translation>
    </message>
    <message>
        <source>threshold {}</source>
        <translation>阈值 {}</translation>
    </message>
    <message>
        <source>Range over the lesion&apos;s slices: {} to {}</source>
        <translation>各病灶层面的范围：{} 至 {}</translation>
    </message>
    <message>
        <source>{} on each of the lesion&apos;s slices</source>
        <translation>各病灶层面均为 {}</translation>
    </message>
    <message>
        <source>For comparison, the model&apos;s probability of “{}”</source>
        <translation>供对照：模型给出的“{}”概率</translation>
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
        <source>How reliable the finding is: {}</source>
        <translation>阅片者判断的可靠性：{}</translation>
    </message>
    <message>
        <source>Validation: {}</source>
        <translation>验证结果：{}</translation>
    </message>
    <message>
        <source>How much the answer depends on the choice of slice. Not a confidence interval.</source>
        <translation>结论对层面选择的依赖程度；并非置信区间。</translation>
    </message>
    <message>
        <source>Slices the prediction is based on: {}</source>
        <translation>预测所依据的层面：{}</translation>
    </message>
    <message>
        <source>Slices behind the probability: {}</source>
        <translation>概率所依据的层面：{}</translation>
    </message>
    <message>
        <source>Drawing Grad-CAM…</source>
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
        <source>Which pixels of these slices speak for the positive class</source>
        <translation>这些层面中支持阳性判断的像素</translation>
    </message>
</context>
<context>
    <name>Result</name>
    <message>
        <source>Answer</source>
        <translation>预测结果</translation>
    </message>
    <message>
        <source>What you entered has changed since this answer; predict again.</source>
        <translation>此结果之后输入已有改动，请重新预测。</translation>
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
        <translation>PDF 文档（PDF）…</translation>
    </message>
    <message>
        <source>DICOM results (zip)…</source>
        <translation>DICOM 结果（zip）…</translation>
    </message>
    <message>
        <source>Being computed. You can go on looking at the images.</source>
        <translation>正在计算，您可以继续浏览影像。</translation>
    </message>
    <message>
        <source>What the model says about each marker appears here.</source>
        <translation>模型对各标志物的判断将显示在此处。</translation>
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
        <source>your own outline</source>
        <translation>您的轮廓</translation>
    </message>
    <message>
        <source>the model&apos;s outline</source>
        <translation>模型的轮廓</translation>
    </message>
    <message>
        <source>From: {}</source>
        <translation>依据：{}</translation>
    </message>
    <message>
        <source>No lesion was outlined. If you see one, the model has missed it: draw it with the brush.</source>
        <translation>未勾画出病灶。若您能看到病灶，说明模型漏检，请用画笔勾画。</translation>
    </message>
    <message>
        <source>Lesion: about {} ml (the pictures carry no millimetres)</source>
        <translation>病灶体积：约 {} 毫升（图片不含尺寸信息）</translation>
    </message>
    <message>
        <source>Lesion: {} ml</source>
        <translation>病灶体积：{} 毫升</translation>
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
        <source>This computer (a local server is started and stopped with the program)</source>
        <translation>本机（本机服务器随程序启动和停止）</translation>
    </message>
    <message>
        <source>A server in the network</source>
        <translation>网络中的服务器</translation>
    </message>
    <message>
        <source>Where predictions are computed</source>
        <translation>在何处计算预测</translation>
    </message>
    <message>
        <source>The images are sent there. The token is given by whoever runs the server; it is kept in your own settings file.</source>
        <translation>影像将发送到该处。令牌由服务器管理员发放，保存在您自己的设置文件中。</translation>
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
        <source>The address must look like https://server.hospital:8443.</source>
        <translation>地址应形如 https://server.hospital:8443。</translation>
    </message>
</context>
<context>
    <name>Steps</name>
    <message>
        <source>Choose the patient&apos;s folder first.</source>
        <translation>请先选择患者文件夹。</translation>
    </message>
    <message>
        <source>Enter age and sex in step 2, or tick “predict without them”.</source>
        <translation>请在第 2 步填写年龄和性别，或勾选“缺少年龄或性别也预测”。</translation>
    </message>
    <message>
        <source>The patient&apos;s folder, or a sequence&apos;s folder in it</source>
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
        <source>{} is missing; {} is shown in its place. No marker is predicted.</source>
        <translation>缺少 {}；以 {} 代替输入网络。不预测标志物。</translation>
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
        <source>Folders opened lately</source>
        <translation>最近打开的文件夹</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>模型</translation>
    </message>
    <message>
        <source>Clear this list</source>
        <translation>清空此列表</translation>
    </message>
    <message>
        <source>Waiting for the server to start</source>
        <translation>等待服务器启动</translation>
    </message>
    <message>
        <source>Collecting the files</source>
        <translation>正在收集文件</translation>
    </message>
    <message>
        <source>Sending the images</source>
        <translation>正在上传影像</translation>
    </message>
    <message>
        <source>The server reads, aligns and prepares the images</source>
        <translation>服务器正在读取、配准并准备影像</translation>
    </message>
    <message>
        <source>{} · {} slices</source>
        <translation>{} · {} 层</translation>
    </message>
    <message>
        <source>Drop the patient&apos;s folder here, or choose it. Picking its T1c folder is enough.</source>
        <translation>将患者文件夹拖到此处，或点击选择；选中其中的 T1c 文件夹即可。</translation>
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
        <source>Predict without them (not tested)</source>
        <translation>缺少年龄或性别也预测（未经验证）</translation>
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
        <source>What you state decides IDH: yes means wild type, no means mutant. Not stated: the model decides.</source>
        <translation>您的判断决定 IDH：有强化灶为野生型，无强化灶为突变型；未说明时由模型判断。</translation>
    </message>
    <message>
        <source>Prediction</source>
        <translation>预测</translation>
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
    <name>Trouble</name>
    <message>
        <source>The server at {} does not answer: check that it runs and that the network reaches it.</source>
        <translation>服务器 {} 没有响应：请检查服务器是否运行、网络是否连通。</translation>
    </message>
    <message>
        <source>The connection to the server at {} broke off before it was done.</source>
        <translation>与服务器 {} 的连接中途断开。</translation>
    </message>
    <message>
        <source>The server does not accept the access token: enter a valid one in the settings.</source>
        <translation>服务器不接受该访问令牌：请在设置中填写有效令牌。</translation>
    </message>
    <message>
        <source>This access token does not allow that: {}</source>
        <translation>该访问令牌无此权限：{}</translation>
    </message>
    <message>
        <source>The server at {} has no certificate that this computer trusts, so nothing was sent to it.</source>
        <translation>本机不信任服务器 {} 的证书，未向其发送任何内容。</translation>
    </message>
    <message>
        <source>What answers at {} is not a gliomark server: check the address in the settings.</source>
        <translation>{} 处的服务不是 gliomark 服务器：请在设置中检查地址。</translation>
    </message>
    <message>
        <source>{}</source>
        <translation>{}</translation>
    </message>
    <message>
        <source>The server failed (status {}) and gave no reason; try again.</source>
        <translation>服务器出错（状态 {}），未说明原因，请重试。</translation>
    </message>
    <message>
        <source>The local server could not be started ({}): install gliomark with its server, or name another server in the settings.</source>
        <translation>本机服务器无法启动（{}）：请安装带服务器的 gliomark，或在设置中指定其他服务器。</translation>
    </message>
    <message>
        <source>The local server has stopped unexpectedly; it can be started again.</source>
        <translation>本机服务器意外停止，可以重新启动。</translation>
    </message>
    <message>
        <source>{} could not be written: choose another place.</source>
        <translation>无法写入 {}：请选择其他位置。</translation>
    </message>
    <message>
        <source>The server sent a picture that cannot be read; try again.</source>
        <translation>服务器发来的图片无法读取，请重试。</translation>
    </message>
</context>
<context>
    <name>folder</name>
    <message>
        <source>{} does not exist: choose the patient&apos;s folder.</source>
        <translation>{} 不存在：请选择患者文件夹。</translation>
    </message>
    <message>
        <source>{} holds no files: choose the patient&apos;s folder.</source>
        <translation>{} 中没有文件：请选择患者文件夹。</translation>
    </message>
    <message>
        <source>{} cannot be read ({}).</source>
        <translation>无法读取 {}（{}）。</translation>
    </message>
</context>
</TS>
