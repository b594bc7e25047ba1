"""
Every parameter of the node, once: type, default, range, description and when it may change.

`config/pose.yaml` and `docs/parameters.md` are written from this list (`python3 -m
ray_pose_ros.node.parameter_docs yaml|markdown`) and a test compares them.
"""

from __future__ import annotations

from ray_pose_ros.estimation.metric import MOST_SIGMA
from ray_pose_ros.node.parameter import ANY, START, Parameter

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        'cameras',
        ['camera'],
        'Topic prefixes of the cameras, one or many: `<camera>/image_raw` (or '
        '`<camera>/image_raw/compressed`) and `<camera>/camera_info` are subscribed. '
        'All cameras feed one window.',
    ),
    Parameter(
        'rig',
        False,
        'Whether the cameras look at the object at once: their images become keyframes in sets of '
        'one time, and the other cameras are published relative to the leading one. When false, '
        'each camera gives keyframes on its own.',
    ),
    Parameter(
        'rig_cameras',
        [''],
        'Which of `cameras` form the rig; the others move on their own. [""]: all.',
    ),
    Parameter(
        'leading_camera',
        '',
        'The camera whose own frame is the parent of those of the rig, and with `invert_tf` of '
        '`reference_frame`. Empty: the first.',
    ),
    Parameter(
        'min_cameras',
        2,
        'Cameras that a set needs at least; it waits 0.25 s for the others that are alive.',
        minimum=1,
        maximum=64,
    ),
    Parameter(
        'sync_slop',
        0.04,
        'Seconds between the first and the last stamp of a set at most.',
        ANY,
        0.0,
        10.0,
    ),
    Parameter(
        'image_transport',
        'raw',
        'Which image topic is subscribed: `raw` (sensor_msgs/Image) or `compressed` '
        '(sensor_msgs/CompressedImage, JPEG or PNG).',
        choices=('raw', 'compressed'),
    ),
    Parameter(
        'require_camera_info',
        True,
        'Refuse images without a calibrated CameraInfo. When false, a field of view is assumed '
        'for them (the official checkpoints estimate it) until matches tell the focal length '
        '(`refine`), which is less accurate.',
    ),
    Parameter(
        'rectified',
        False,
        'Whether the images are rectified: P of CameraInfo is used instead of K, without '
        'distortion.',
    ),
    Parameter(
        'qos_reliability',
        'best_effort',
        'Reliability of the image and camera_info subscriptions. `best_effort` matches every '
        'publisher; `reliable` only reliable ones. `qos_overrides.<topic>.subscription.*` set '
        'history, depth, reliability and durability of single topics.',
        choices=('best_effort', 'reliable'),
    ),
    Parameter('qos_depth', 5, 'Queue depth of those subscriptions.', minimum=1, maximum=100),
    Parameter(
        'checkpoint',
        '',
        "Directory of the weights: the official release or this project's own format. Empty: "
        'the model that comes with the package.',
    ),
    Parameter(
        'device',
        'auto',
        'Where the model runs. `auto` is `cuda` where PyTorch finds a GPU, `cpu` elsewhere.',
        choices=('auto', 'cpu', 'cuda'),
    ),
    Parameter(
        'precision',
        'float32',
        'Arithmetic of the network; poses are recovered from rays in double precision always.',
        choices=('float32', 'float16', 'bfloat16'),
    ),
    Parameter(
        'window_size',
        8,
        'Keyframes solved together; when one more comes, the oldest leaves.',
        minimum=2,
        maximum=64,
    ),
    Parameter(
        'map_size',
        50,
        'Keyframes kept in one world while the window slides, in ~/map and ~/save; of more, the '
        'one that is missed least goes. 0: each window has a world of its own.',
        minimum=0,
        maximum=1000,
    ),
    Parameter(
        'min_views', 2, 'Keyframes needed before anything is published.', minimum=2, maximum=64
    ),
    Parameter(
        'samples',
        0,
        'Solutions drawn for a window and averaged. Their spread goes into the uncertainty that '
        'is told where matches (`refine`) do not tell it. 0 is what suits the checkpoint.',
        minimum=0,
        maximum=64,
    ),
    Parameter(
        'steps',
        0,
        'Denoising steps; fewer are faster and coarser. 0 is what suits the checkpoint.',
        minimum=0,
        maximum=1000,
    ),
    Parameter(
        'upright',
        True,
        'Turn views upright before the model sees them where it can tell that they are turned by '
        'right angles, as those of a camera mounted on its side; poses stay those of the camera '
        'as it is. Official models do not tell.',
    ),
    Parameter(
        'second_look',
        True,
        'Where refined poses are unsure, show the model these poses and have it look again, if '
        'the checkpoint is made for it. Without `refine`: where its matches and poses do not '
        'agree, up to twice, and at other crops of images without masks, which makes it more '
        'accurate. Other poses are published before, and a newer keyframe comes first; false '
        'saves the time of the processor.',
    ),
    Parameter(
        'seed',
        0,
        'Seed of the sampler: the same images give the same poses.',
        minimum=0,
        maximum=2**31 - 1,
    ),
    Parameter(
        'refine',
        True,
        'Whether feature matches make the poses exact where views overlap. The poses of the model '
        'are published before, and improved by what has been matched so far; each two keyframes '
        'are matched once, while the model is not busy. false saves the time of the processor.',
    ),
    Parameter(
        'matcher',
        '',
        'Matcher that refinement uses beside SIFT; all but `sift` need a package (see '
        '`ray-pose estimate --matcher`). Empty: `aliked` if it is installed, else `lighterglue`, '
        'else SIFT alone.',
        choices=('', 'sift', 'xfeat', 'lighterglue', 'disk', 'aliked'),
    ),
    Parameter(
        'refine_deadline',
        1.0,
        'Seconds after the first poses of a window for which newer keyframes have to wait, so '
        'that keyframes are matched also when there always is a newer one. What was matched till '
        'then is kept. 0: newer ones never wait.',
        minimum=0.0,
        maximum=600.0,
    ),
    Parameter(
        'points',
        True,
        'Publish ~/points: the points of the object and around it that matches of keyframes show '
        '(with `refine`).',
    ),
    Parameter(
        'keyframe_min_interval',
        0.5,
        'Seconds between two keyframes of a camera at least.',
        ANY,
        0.0,
        3600.0,
    ),
    Parameter(
        'keyframe_min_change',
        0.05,
        "How much the image must differ from the camera's last keyframe: one minus the "
        'correlation of the two as thumbnails. 0 takes every image, 1 means unrelated.',
        ANY,
        0.0,
        2.0,
    ),
    Parameter(
        'keyframe_max_interval',
        0.0,
        'Seconds after which a keyframe is taken although the image has not changed. 0: never; '
        'a camera that stands still adds nothing.',
        ANY,
        0.0,
        86400.0,
    ),
    Parameter(
        'keyframe_min_translation',
        0.0,
        'Metres by which the camera must have moved since its last keyframe, by TF in '
        '`motion_frame`, unless it has turned by `keyframe_min_rotation`: an image taken nearer '
        'is no keyframe, and is not looked at. Where TF does not tell, the image alone decides. '
        '0: off.',
        ANY,
        0.0,
        1000.0,
    ),
    Parameter(
        'keyframe_min_rotation',
        0.0,
        'The same for its rotation, degrees. With both, either is enough. 0: off.',
        ANY,
        0.0,
        180.0,
    ),
    Parameter(
        'box',
        [0.0, 0.0, 0.0, 0.0],
        'Where the object is in every image, x_min, y_min, x_max, y_max in pixels; or four '
        'numbers for each of `cameras`. `<camera>/mask` and `<camera>/roi` go before. All zero: '
        'the centred square.',
        ANY,
        -1e6,
        1e6,
    ),
    Parameter(
        'object_timeout',
        1.0,
        'Seconds between an image and the nearest mask or region of its object at most. Once '
        'such have come, images without one are refused. 0: however old, for a region that is '
        'published once.',
        ANY,
        0.0,
        86400.0,
    ),
    Parameter(
        'reference_frame',
        'ray_pose_world',
        'Frame the poses are given in: the object is its origin, the first keyframe of the map '
        'its orientation (optical: z forward, y down). It stays while the window moves on and '
        'jumps when a new map begins, with `map_size` 0 at each window; its scale is arbitrary '
        'without `motion_frame`.',
    ),
    Parameter('object_frame', 'ray_pose_object', 'Frame published at the object.'),
    Parameter('publish_tf', True, 'Whether anything goes to /tf.', ANY),
    Parameter(
        'invert_tf',
        False,
        "Publish `reference_frame` as a child of the leading camera's own frame, with each "
        'estimate and at its newest keyframe, so that both are in one tree with the robot.',
    ),
    Parameter(
        'motion_frame',
        '',
        'Frame in which TF knows where the cameras are and the object stands still: `odom`, '
        '`map`, the base of an arm or of a rig. All lengths are in metres once the cameras have '
        'moved there, or stand apart. Empty: the scale is arbitrary.',
    ),
    Parameter(
        'motion_timeout',
        1.0,
        "Seconds after an image for which TF is waited for to tell the camera's pose at its "
        'time. Nothing is held up meanwhile.',
        ANY,
        0.0,
        10.0,
    ),
    Parameter(
        'scale_max_sigma',
        MOST_SIGMA,
        'Relative uncertainty (one standard deviation of the logarithm) beyond which a scale is '
        'not used and lengths stay arbitrary.',
        ANY,
        0.001,
        1.0,
    ),
    Parameter(
        'publish_in_motion_frame',
        True,
        'Publish `reference_frame` as a child of `motion_frame` where the scale is known, so that '
        'the object is in one tree with the robot. Not together with `invert_tf`.',
        ANY,
    ),
    Parameter(
        'lost_rotation_sigma',
        0.8,
        'Radians of uncertainty of the newest keyframe within its window from which on nothing '
        'goes to /tf and ~/status says lost. 0: never.',
        ANY,
        0.0,
        10.0,
    ),
    Parameter(
        'tf_rate',
        5.0,
        'Hertz at which the transforms are repeated while images arrive, stamped with the '
        'newest image. 0: once per estimate.',
        ANY,
        0.0,
        100.0,
    ),
    Parameter(
        'marker_scale',
        0.2,
        'Depth of the drawn frusta, where 1 is the distance of the first camera from the object.',
        ANY,
        1e-4,
        1e4,
    ),
    Parameter(
        'max_image_megapixels',
        50.0,
        'Larger images are refused before anything is allocated for them.',
        ANY,
        0.01,
        1000.0,
    ),
    Parameter(
        'stale_timeout',
        0.0,
        "Images older than this many seconds by the node's clock, or as far ahead of it, are "
        'refused. 0: no limit (for bags without /clock and cameras whose clock is not '
        'synchronised).',
        ANY,
        0.0,
        86400.0,
    ),
    Parameter(
        'camera_timeout',
        5.0,
        'Seconds without an image after which diagnostics warn about a camera.',
        ANY,
        0.1,
        86400.0,
    ),
    Parameter(
        'watchdog_timeout',
        60.0,
        'Seconds without a sign of life after which a step of the model counts as hung and a new '
        'worker with a newly loaded model takes over. On a CPU, and for loading, ten times as '
        'long. 0: never.',
        ANY,
        0.0,
        86400.0,
    ),
    Parameter(
        'output_directory',
        '',
        'Where ~/save writes. Empty: `ray_pose` in $ROS_HOME, which is ~/.ros unless set.',
        START,
    ),
    Parameter(
        'autostart',
        True,
        'Configure and activate without waiting for a lifecycle manager.',
        START,
    ),
)
BY_NAME = {p.name: p for p in PARAMETERS}
