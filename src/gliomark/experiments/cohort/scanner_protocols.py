"""MR protocols as five makers' scanners run them and write them into DICOM headers, at 1.5 and 3 tesla."""

from __future__ import annotations

from dataclasses import dataclass

AXIAL, SAGITTAL, CORONAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
Range = tuple[float, float]


@dataclass(frozen=True)
class Protocol:
    """One protocol of one maker: times in ms as (lowest, highest), degrees, mm.

    settled: timing and technique alone settle the kind. tags: further header values. planes: orientation.
    """

    maker: str
    kind: str
    technique: str
    variant: str
    name: str
    repetition: Range
    echo: Range
    inversion: Range | None
    flip: float
    dimensions: str
    step: float
    english: str
    chinese: str
    settled: bool = True
    images: int = 22
    plane: tuple[int, ...] = tuple(AXIAL)
    tags: tuple[tuple[str, object], ...] = ()


S, G, P, U, C = "SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems", "UIH", "TOSHIBA_MEC"
M2 = (("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]),)
PSE = (("ImageType", ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]),)
PFFE = (("ImageType", ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]),)
PIR = (("ImageType", ["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"]),)
GEO = (("ImageType", ["ORIGINAL", "PRIMARY", "OTHER"]),)
PROTOCOLS = (
    # Siemens
    Protocol(S, "T1", "SE", "SK\\SP\\OSP", "*se2d1", (420, 650), (7.8, 14), None, 70, "2D", 6, "t1_se_tra",
             "横断T1", tags=M2),
    Protocol(S, "T1", "GR\\IR", "SK\\SP\\MP", "*tfl3d1_16ns", (1800, 2400), (2.2, 3.6), (850, 1100), 9, "3D", 1,
             "t1_mprage_tra_p2_iso", "T1 三维 横断", images=176, tags=M2),
    Protocol(S, "T1", "GR", "SP\\OSP", "*fl2d1", (190, 300), (2.4, 4.8), None, 70, "2D", 5, "t1_fl2d_tra",
             "T1平扫横断", tags=M2),
    Protocol(S, "T1", "SE\\IR", "SK\\SP\\MP", "*tir2d1_7rs", (1700, 2300), (8.5, 12), (750, 900), 150, "2D", 5,
             "t1_tirm_tra_dark-fluid", "T1 横轴位", tags=M2),
    Protocol(S, "T2", "SE", "SK\\SP\\OSP", "*tse2d1_18", (3600, 6500), (88, 110), None, 150, "2D", 6,
             "t2_tse_tra", "横断T2", tags=M2),
    Protocol(S, "T2", "SE", "SK\\SP", "*spcR_282ns", (2800, 3400), (380, 420), None, 120, "3D", 1,
             "t2_space_tra_p2_iso", "T2三维",
             images=176, tags=M2),
    Protocol(S, "FLAIR", "SE\\IR", "SK\\SP\\MP", "*tir2d1_16", (7500, 9500), (81, 120), (2350, 2520), 150,
             "2D", 6,
             "t2_tirm_tra_dark-fluid", "横断T2压水", tags=M2),
    Protocol(S, "FLAIR", "SE\\IR", "SK\\SP\\MP", "*spcir_242ns", (4800, 5200), (350, 400), (1650, 1800), 120,
             "3D", 1,
             "t2_spc_da-fl_sag_p2_iso", "三维FLAIR", images=176, plane=tuple(SAGITTAL), tags=M2),
    Protocol(S, "PD", "SE", "SK\\SP\\OSP", "*tse2d1_5", (2400, 3200), (11, 32), None, 150, "2D", 4,
             "pd_tse_tra", "质子像", tags=M2),
    Protocol(S, "DWI", "EP", "SK\\SP", "*ep_b1000t", (3800, 7500), (65, 105), None, 90, "2D", 5,
             "ep2d_diff_3scan_trace_p2", "弥散",
             tags=(("ImageType", ["ORIGINAL", "PRIMARY", "DIFFUSION", "TRACEW", "ND"]), ("DiffusionBValue",
             1000.0))),
    Protocol(S, "DWI", "EP", "SK\\SP", "*ep_b0", (3800, 7500), (65, 105), None, 90, "2D", 5, "ep2d_dwi_b0",
             "扩散 b0", tags=M2),
    Protocol(S, "ADC", "EP", "SK\\SP", "*ep_b0_1000", (3800, 7500), (65, 105), None, 90, "2D", 5,
             "ep2d_diff_3scan_trace_p2_ADC",
             "弥散 ADC", tags=(("ImageType", ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]),)),
    Protocol(S, "T2*", "GR", "SP", "*fl3d1r", (26, 29), (19, 21), None, 15, "3D", 2, "SWI_Images", "磁敏感",
             images=72,
             tags=(("ImageType", ["ORIGINAL", "PRIMARY", "M", "SWI", "NORM"]),)),
    Protocol(S, "phase", "GR", "SP", "*fl3d1r", (26, 29), (19, 21), None, 15, "3D", 2, "Pha_Images", "相位",
             images=72,
             tags=(("ImageType", ["ORIGINAL", "PRIMARY", "P", "SWI", "ND"]),)),
    Protocol(S, "T2*", "GR", "SP\\OSP", "*fl2d1", (600, 850), (18, 26), None, 20, "2D", 5,
             "t2_fl2d_tra_hemo", "T2*横断", tags=M2),
    Protocol(S, "angiography", "GR", "SP\\MTC", "*fi3d1r", (20, 24), (3.4, 7), None, 18, "3D", 0.6,
             "TOF_3D_multi-slab", "血管",
             images=140, tags=M2),
    Protocol(S, "localiser", "GR", "SP\\OSP", "*fl2d1", (7.4, 8.8), (3.1, 3.8), None, 20, "2D", 10,
             "localizer", "定位", images=3),
    Protocol(S, "perfusion", "EP", "SK\\SP", "*epfid2d1_128", (1400, 1650), (28, 34), None, 90, "2D", 5,
             "ep2d_perf_p2", "灌注",
             images=1000, tags=M2),
    Protocol(S, "MP2RAGE", "GR\\IR", "SK\\SP\\MP", "*tfl3d1_16ns", (4800, 5200), (2.5, 3), (650, 750), 4,
             "3D", 1,
             "t1_mp2rage_sag_INV1", "T1 MP2RAGE INV1", images=176, plane=tuple(SAGITTAL), tags=M2),
    Protocol(S, "MP2RAGE", "GR\\IR", "SK\\SP\\MP", "*tfl3d1_16ns", (4800, 5200), (2.5, 3), (2400, 2600), 5,
             "3D", 1,
             "t1_mp2rage_sag_UNI_Images", "T1 MP2RAGE UNI", images=176, plane=tuple(SAGITTAL),
             tags=(("ImageType", ["DERIVED", "PRIMARY", "M", "ND", "UNI"]),)),
    Protocol(S, "derived", "GR", "SP", "*fi3d1r", (20, 24), (3.4, 7), None, 18, "3D", 1, "TOF_MIP_tra",
             "最大密度投影", images=12,
             tags=(("ImageType", ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "CSA MIP"]),)),
    Protocol(S, "derived", "GR\\IR", "SP\\MP", "*tfl3d1_16ns", (1800, 2400), (2.2, 3.6), (850, 1100), 9,
             "3D", 1, "t1_mprage_SUB",
             "T1减影", images=176, tags=(("ImageType", ["DERIVED", "SECONDARY", "M", "SUB"]),
             ("ContrastBolusAgent", "Gadovist"))),
    Protocol(S, "derived", "SE", "SK\\SP", "*se2d32", (2000, 2400), (12, 14), None, 180, "2D", 5,
             "T2_Map_Images", "T2 MAP",
             tags=(("ImageType", ["DERIVED", "PRIMARY", "M", "ND", "T2 MAP"]),)),
    Protocol(S, "sagittal", "SE", "SK\\SP\\OSP", "*se2d1", (420, 650), (7.8, 14), None, 70, "2D", 5.5,
             "t1_se_sag", "矢状T1",
             plane=tuple(SAGITTAL), tags=M2),
    Protocol(S, "coronal", "SE", "SK\\SP\\OSP", "*tse2d1_18", (3600, 6500), (88, 110), None, 150, "2D", 5,
             "t2_tse_cor", "冠状T2",
             plane=tuple(CORONAL), tags=M2),
    Protocol(S, "other body part", "SE", "SK\\SP\\OSP", "*tse2d1_15", (2800, 3600), (100, 120), None, 150,
             "2D", 4, "t2_tse_tra_C5-C7",
             "颈椎T2横断", tags=(*M2, ("BodyPartExamined", "CSPINE"))),
    Protocol(S, "double inversion", "SE\\IR", "SK\\SP\\MP", "*spcir_256ns", (7400, 7600), (310, 325), (2950,
             3050), 120, "3D", 1.3,
             "t2_space_dir_iso", "双反转", images=120, tags=M2),
    # GE
    Protocol(G, "T1", "SE\\IR", "SK", "", (1700, 2600), (8, 25), (700, 870), 111, "2D", 6, "OAx T1 FLAIR",
             "T1横轴位", tags=GEO),
    Protocol(G, "T1", "GR", "SS\\SP\\SK", "", (7, 9), (2.6, 3.4), (400, 450), 12, "3D", 1, "Ax 3D T1 BRAVO",
             "T1 三维", images=160,
             tags=GEO),
    Protocol(G, "T1", "SE", "NONE", "", (400, 700), (8, 16), None, 90, "2D", 6, "Ax T1 SE", "轴位T1", tags=GEO),
    Protocol(G, "T2", "SE", "SK", "", (3500, 6000), (85, 120), None, 142, "2D", 6, "OAx T2 FSE", "轴位T2",
             tags=GEO),
    Protocol(G, "T2", "RM", "SK", "", (3900, 5500), (90, 120), None, 142, "2D", 6, "Ax T2 PROPELLER",
             "T2 轴位 螺旋桨", settled=False,
             tags=GEO),
    Protocol(G, "FLAIR", "SE\\IR", "SK", "", (8000, 9500), (110, 165), (2050, 2350), 142, "2D", 6,
             "OAx T2 FLAIR", "轴位T2 FLAIR",
             tags=GEO),
    Protocol(G, "FLAIR", "SE\\IR", "SK", "", (6000, 8000), (110, 145), (1700, 2050), 90, "3D", 1.2,
             "Sag CUBE T2 FLAIR",
             "三维水抑制", images=140, plane=tuple(SAGITTAL), tags=GEO),
    Protocol(G, "PD", "SE", "SK", "", (2000, 3000), (14, 30), None, 90, "2D", 5, "Ax PD FSE", "质子加权",
             tags=GEO),
    Protocol(G, "DWI", "EP\\SE", "NONE", "", (4000, 8500), (62, 95), None, 90, "2D", 6, "Ax DWI ASSET",
             "弥散加权", images=44, tags=GEO),
    Protocol(G, "T2*", "GR", "SS\\SP\\SK", "", (34, 46), (22, 26), None, 15, "3D", 2, "Ax SWAN",
             "磁敏感加权", images=80, tags=GEO),
    Protocol(G, "T2*", "GR", "SS\\SP", "", (400, 700), (14, 25), None, 20, "2D", 5, "Ax GRE T2*", "T2* 轴位",
             tags=GEO),
    Protocol(G, "angiography", "GR", "SS\\SP", "", (21, 30), (2.4, 3.6), None, 20, "3D", 0.7, "3D TOF MRA",
             "脑动脉血管", images=160,
             tags=GEO),
    Protocol(G, "steady state", "GR", "SS\\SK", "", (4.4, 5.8), (1.6, 2.3), None, 60, "3D", 0.8,
             "Ax FIESTA-C", "3D FIESTA", images=80,
             tags=GEO),
    Protocol(G, "perfusion", "RM", "NONE", "", (4600, 5400), (10, 11), (1525, 2525), 111, "3D", 4, "3D ASL",
             "灌注 ASL", images=40,
             tags=(("ImageType", ["ORIGINAL", "PRIMARY", "ASL"]),)),
    Protocol(G, "perfusion", "GR", "SS\\SP", "", (3, 6), (1, 2.2), None, 20, "3D", 4, "Ax DCE perfusion",
             "动态增强", images=1200,
             tags=(*GEO, ("NumberOfTemporalPositions", 60), ("ContrastBolusAgent", "GAD"))),
    Protocol(G, "localiser", "GR", "SS\\SP", "", (4.5, 7), (1.3, 2.2), None, 30, "2D", 10, "3Plane Loc",
             "三平面定位", images=5, tags=GEO),
    Protocol(G, "sagittal", "SE\\IR", "SK", "", (1700, 2600), (8, 25), (700, 870), 111, "2D", 6,
             "Sag T1 FLAIR", "矢状位T1",
             plane=tuple(SAGITTAL), tags=GEO),
    Protocol(G, "other body part", "SE", "SK", "", (2400, 3400), (30, 45), None, 142, "2D", 4,
             "Sag PD FS knee", "膝关节质子",
             plane=tuple(SAGITTAL), tags=(*GEO, ("BodyPartExamined", "KNEE"))),
    Protocol(G, "derived", "SE", "SK", "", (3900, 4500), (15, 25), None, 90, "2D", 4, "SyMRI Synthetic T2W",
             "合成T2",
             tags=(("ImageType", ["DERIVED", "SECONDARY", "SYNTHETIC"]),)),
    # Philips
    Protocol(P, "T1", "SE", "SK", "SE", (420, 650), (9, 16), None, 69, "2D", 6, "T1W_SE", "T1 横断 SE",
             tags=PSE),
    Protocol(P, "T1", "GR", "MP", "T1TFE", (6.7, 8.6), (3.0, 4.0), None, 8, "3D", 1, "3D_T1W_TFE", "T1 3D",
             images=180, tags=PFFE),
    Protocol(P, "T1", "IR", "SK", "TIR", (1900, 2300), (15, 22), (750, 850), 90, "2D", 5, "T1W_IR_TSE",
             "T1W 横断", tags=PIR),
    Protocol(P, "T2", "SE", "SK", "TSE", (2800, 5000), (78, 110), None, 90, "2D", 6, "T2W_TSE", "T2W 横断",
             tags=PSE),
    Protocol(P, "FLAIR", "IR", "SK", "TIR", (9000, 11000), (115, 140), (2550, 2850), 90, "2D", 6,
             "FLAIR_longTR", "T2W 水抑制", tags=PIR),
    Protocol(P, "FLAIR", "IR", "SK", "TIR", (4700, 4900), (270, 345), (1600, 1680), 90, "3D", 1.1,
             "sag 3D_FLAIR_VISTA", "3D FLAIR 矢状",
             images=160, plane=tuple(SAGITTAL), tags=PIR),
    Protocol(P, "T2*", "GR", "SP", "FFE", (480, 720), (14, 23), None, 18, "2D", 5, "T2W_FFE", "T2* FFE",
             tags=PFFE),
    Protocol(P, "T2*", "GR", "SP", "FFE", (31, 52), (7, 7.4), None, 17, "3D", 1, "SWIp", "磁敏感SWIp",
             images=120, tags=PFFE),
    Protocol(P, "DWI", "SE\\EP", "SK", "DwiSE", (2500, 5000), (65, 100), None, 90, "2D", 6, "DWI_SSh",
             "扩散加权", images=44,
             tags=(*PSE, ("DiffusionBValue", 1000.0))),
    Protocol(P, "phase", "GR", "SP", "FFE", (15, 18), (6, 9), None, 10, "3D", 1, "PCA_velocity", "相位对比",
             tags=(("ImageType", ["ORIGINAL", "PRIMARY", "PHASE CONTRAST M", "P", "PCA"]),)),
    Protocol(P, "localiser", "GR", "NONE", "TFE", (5, 12), (2.2, 4.7), None, 20, "2D", 10, "Survey_SHC",
             "定位像", images=3, tags=PFFE),
    Protocol(P, "field map", "GR", "SP", "FFE", (10, 12), (2.2, 4.7), None, 5, "3D", 3, "B1_calibration",
             "校准", images=60, tags=PFFE),
    Protocol(P, "STIR", "IR", "SK", "TIR", (2500, 4500), (60, 80), (160, 200), 90, "2D", 4, "STIR_longTE",
             "STIR 横断", tags=PIR),
    # United Imaging
    Protocol(U, "T1", "SE", "SK", "fse", (420, 750), (8, 13), None, 90, "2D", 6, "t1_fse_tra", "头颅T1横断"),
    Protocol(U, "T1", "GR\\IR", "SP\\MP", "gre_fsp_c", (6.8, 7.6), (2.9, 3.3), (730, 760), 10, "3D", 1,
             "t1_gre_fsp_3d_tra", "T1三维",
             images=160),
    Protocol(U, "T2", "SE", "SK", "fse", (3600, 5600), (90, 120), None, 90, "2D", 6, "t2_fse_tra",
             "头颅T2横断"),
    Protocol(U, "FLAIR", "SE\\IR", "SK", "fse_ir", (7800, 9200), (90, 125), (2300, 2500), 90, "2D", 6,
             "t2_flair_tra", "T2压水横断"),
    Protocol(U, "DWI", "EP\\SE", "NONE", "epi_dwi", (2800, 4800), (68, 95), None, 90, "2D", 6, "epi_dwi_tra",
             "弥散横断", images=44,
             tags=(("DiffusionBValue", 800.0),)),
    Protocol(U, "coronal", "SE", "SK", "fse", (420, 750), (8, 13), None, 90, "2D", 5, "t1_fse_cor", "T1冠状",
             plane=tuple(CORONAL)),
    # Toshiba, Canon
    Protocol(C, "T1", "SE", "NONE", "SE2D", (420, 650), (10, 17), None, 75, "2D", 6, "T1 AX", "T1 轴位"),
    Protocol(C, "T1", "GR", "SP", "FE3D", (15, 28), (4.5, 6.8), None, 25, "3D", 1.2, "3D T1 FFE AX",
             "T1 三维轴位", settled=False,
             images=140),
    Protocol(C, "T2", "SE", "SK", "FSE2D", (3800, 5600), (90, 108), None, 90, "2D", 6, "T2 AX", "T2 轴位"),
    Protocol(C, "FLAIR", "SE\\IR", "SK", "FSE2D_FLAIR", (8000, 10200), (100, 125), (2300, 2720), 90, "2D", 6,
             "FLAIR AX", "水抑制 轴位"),
    Protocol(C, "angiography", "GR", "SP", "FE3D", (20, 30), (5, 7), None, 20, "3D", 0.8, "MRA TOF",
             "颅内血管", images=120),
)  # fmt: skip
